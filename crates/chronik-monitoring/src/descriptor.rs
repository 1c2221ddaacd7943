//! What a metric is: its name, type, labels and help; and the macro that declares a table.

use crate::Buckets;

/// Type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// A number that only grows; its name ends in `_total`.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts of values per bucket, with their sum.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The declaration of one metric.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MetricDescriptor {
    /// Full name, as it is scraped in the Prometheus text format.
    pub name: &'static str,
    /// Type.
    pub kind: MetricKind,
    /// Names of the labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// Buckets of a histogram; unused by the other kinds.
    pub buckets: Buckets,
    help: &'static str,
}

impl MetricDescriptor {
    /// A counter. Its name must end in `_total`, so that both exposition formats agree on it.
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(name, MetricKind::Counter, labels, Buckets::SECONDS, help)
    }

    /// A gauge. Its name must not end in `_total`.
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(name, MetricKind::Gauge, labels, Buckets::SECONDS, help)
    }

    /// A descriptor of any kind, for [`crate::metrics!`].
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: MetricKind,
        labels: &'static [&'static str],
        buckets: Buckets,
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, buckets, help }
    }

    /// The help sentences on one line.
    #[must_use]
    pub fn help(&self) -> String {
        self.help.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Why the declaration cannot be exposed, if it cannot.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let legal = |name: &str| {
            let word =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            name.bytes().all(word) && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        };
        let is_total = self.name.ends_with("_total");
        if !legal(self.name) || !self.labels.iter().all(|label| legal(label)) {
            Some("names are lower-case words joined by underscores")
        } else if self.help().is_empty() {
            Some("a metric has a help sentence")
        } else if is_total != (self.kind == MetricKind::Counter) {
            Some("exactly the names of counters end in _total")
        } else {
            None
        }
    }
}

/// Declares the metrics of a crate: a struct of handles, its descriptors, and its registration.
///
/// ```
/// use chronik_monitoring::{Buckets, Counter, Family, Histogram, Registry};
///
/// chronik_monitoring::metrics! {
///     /// What the kitchen measures.
///     pub struct KitchenMetrics {
///         /// Plates that left the kitchen.
///         plates: Counter = "kitchen_plates_total";
///         /// Time from order to plate, by dish.
///         wait: Family<Histogram> = "kitchen_wait_seconds",
///             labels("dish"), buckets(Buckets::SECONDS);
///     }
/// }
///
/// let registry = Registry::new(2);
/// let metrics = KitchenMetrics::register(&registry);
/// metrics.plates.increment(0, 1);
/// metrics.wait.series(&["soup"]).observe(1, 250_000);
/// assert_eq!(KitchenMetrics::DESCRIPTORS.len(), 2);
/// ```
///
/// The doc comment is the help text. The type is `Counter`, `Gauge`, `Histogram`, or a `Family` of
/// one of them with `labels`. A histogram without `buckets` has those of [`Buckets::SECONDS`].
#[macro_export]
macro_rules! metrics {
    (
        $(#[doc = $struct_doc:literal])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $metric:literal
                    $(, labels($($label:literal),+))? $(, buckets($buckets:expr))?;
            )*
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug)]
        $visibility struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $name {
            /// The declarations, in the order of the fields.
            pub const DESCRIPTORS: &'static [$crate::MetricDescriptor] = &[$(
                $crate::MetricDescriptor::new(
                    $metric,
                    <$type as $crate::Instrument>::KIND,
                    &[$($($label),+)?],
                    [$($buckets,)? $crate::Buckets::SECONDS][0],
                    concat!($($doc, "\n",)*),
                ),
            )*];

            /// Registers every metric with `registry`.
            ///
            /// # Panics
            /// If a name is taken or breaks the rules of the exposition formats.
            #[must_use]
            pub fn register(registry: &$crate::Registry) -> Self {
                let mut descriptors = Self::DESCRIPTORS.iter();
                Self {
                    $($field: registry.register(
                        descriptors.next().expect("there is one descriptor per field"),
                    ),)*
                }
            }
        }
    };
}
