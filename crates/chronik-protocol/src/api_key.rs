//! The one table of APIs: number, name, versions, headers.
//!
//! Ranges are those of a Kafka 4.2 broker listener. An API is in this table when its schema
//! exists; whether a server advertises it is the server's decision. Bounds of versions are
//! inclusive, as in Kafka's own tables.

use std::fmt;

/// An inclusive range of versions of one API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    /// Lowest version.
    pub min: i16,
    /// Highest version, inclusive; at least `min`.
    pub max: i16,
}

impl VersionRange {
    /// True if `version` lies in the range.
    #[must_use]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

macro_rules! api_keys {
    ($($name:ident = $key:literal,
        shown $shown_min:literal..=$shown_max:literal,
        served $served_min:literal..=$served_max:literal,
        flexible $flexible:expr;)*) => {
        /// A Kafka API that this crate can read and write.
        #[allow(missing_docs, reason = "each variant is documented by its Kafka name")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every API, in ascending order of number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The API with this number; `None` if this crate has no schema for it.
            #[must_use]
            pub const fn from_number(number: i16) -> Option<Self> {
                match number {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Versions that ApiVersions shows, all of which can be decoded.
            #[must_use]
            pub const fn shown(self) -> VersionRange {
                match self {
                    $(Self::$name => VersionRange { min: $shown_min, max: $shown_max },)*
                }
            }

            /// Versions that work; within [`shown`](Self::shown). A version that is shown but not
            /// served is decoded and then refused with UNSUPPORTED_VERSION.
            #[must_use]
            pub const fn served(self) -> VersionRange {
                match self {
                    $(Self::$name => VersionRange { min: $served_min, max: $served_max },)*
                }
            }

            /// First version with compact lengths and tagged fields (KIP-482); `None` if no
            /// version has them.
            #[must_use]
            pub const fn first_flexible(self) -> Option<i16> {
                match self {
                    $(Self::$name => $flexible,)*
                }
            }
        }
    };
}

api_keys! {
    // Produce 0-2 are shown because old librdkafka derives compression support from that range
    // (KAFKA-18659).
    Produce = 0, shown 0..=13, served 3..=13, flexible Some(9);
    Fetch = 1, shown 4..=18, served 4..=18, flexible Some(12);
    ListOffsets = 2, shown 1..=11, served 1..=11, flexible Some(6);
    Metadata = 3, shown 0..=13, served 0..=13, flexible Some(9);
    ApiVersions = 18, shown 0..=4, served 0..=4, flexible Some(3);
    CreateTopics = 19, shown 2..=7, served 2..=7, flexible Some(5);
    DeleteTopics = 20, shown 1..=6, served 1..=6, flexible Some(4);
    InitProducerId = 22, shown 0..=5, served 0..=5, flexible Some(2);
    DescribeConfigs = 32, shown 1..=4, served 1..=4, flexible Some(4);
    DescribeCluster = 60, shown 0..=2, served 0..=2, flexible Some(0);
}

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// True if `version` has compact lengths and tagged fields (KIP-482).
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.first_flexible() {
            Some(first) => version >= first,
            None => false,
        }
    }

    /// Version of the request header: 2 (with tagged fields) for flexible versions, else 1.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 (with tagged fields) for flexible versions, else 0.
    /// ApiVersions always has 0, so that a client can read the answer to a version that the
    /// server does not know (KIP-511).
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, Self::ApiVersions) { 1 } else { 0 }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::SCHEMA_FACTS;

    #[test]
    fn the_table_says_what_the_schemas_say() {
        let table: Vec<_> = ApiKey::ALL.iter().map(|api| api.number()).collect();
        let schemas: Vec<_> = SCHEMA_FACTS.iter().map(|facts| facts.key).collect();
        assert_eq!(table, schemas);
        for facts in SCHEMA_FACTS {
            let api = ApiKey::from_number(facts.key).unwrap();
            assert_eq!(api.name(), facts.name);
            assert_eq!(api.shown(), facts.versions, "{api}");
            assert_eq!(api.served(), facts.served, "{api}");
            assert_eq!(api.first_flexible(), facts.flexible, "{api}");
            let flexible = facts.flexible.unwrap_or(i16::MAX);
            let response_header = i16::from(!facts.plain_response_header);
            assert_eq!(api.response_header_version(flexible), response_header, "{api}");
        }
    }

    #[test]
    fn a_version_before_the_first_flexible_one_has_plain_headers() {
        let versions = |api: ApiKey, version| {
            (api.request_header_version(version), api.response_header_version(version))
        };
        assert_eq!(versions(ApiKey::Produce, 8), (1, 0));
        assert_eq!(versions(ApiKey::Produce, 9), (2, 1));
        assert_eq!(versions(ApiKey::DescribeCluster, 0), (2, 1));
        assert_eq!(versions(ApiKey::ApiVersions, 2), (1, 0));
        assert_eq!(versions(ApiKey::ApiVersions, 4), (2, 0));
    }
}
