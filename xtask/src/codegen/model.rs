//! What a schema file says, resolved: the input of the emitter.
//!
//! Version bounds here are inclusive on both sides, as in Kafka's own tables.

/// An inclusive range of API versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// First version.
    pub min: i16,
    /// Last version.
    pub max: i16,
}

impl Versions {
    /// The versions in both ranges; `None` if there are none.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        (both.min <= both.max).then_some(both)
    }
}

/// One API: a schema file.
#[derive(Debug)]
pub struct Api {
    /// Kafka's number.
    pub key: i16,
    /// Kafka's name in upper camel case, without "Request" or "Response".
    pub name: String,
    /// Versions the codec reads and writes.
    pub versions: Versions,
    /// Versions a server answers with more than a refusal; within `versions`.
    pub served: Versions,
    /// True if responses have header version 0 whatever their own version (KIP-511).
    pub plain_response_header: bool,
    /// First flexible version (KIP-482); `None` if no version is flexible.
    pub flexible: Option<i16>,
    /// Fields of the request.
    pub request: Vec<Field>,
    /// Fields of the response.
    pub response: Vec<Field>,
}

/// A field in the order of the wire.
#[derive(Debug)]
pub struct Field {
    /// Name in snake case; also the Rust name.
    pub name: String,
    /// What the bytes mean.
    pub kind: Kind,
    /// Versions that carry the field, already limited to those of the enclosing struct.
    pub versions: Versions,
    /// First version in which null is legal; within `versions`.
    pub nullable_from: Option<i16>,
    /// Tag number, for a field in the tagged section.
    pub tag: Option<u32>,
    /// Value of a field that a version does not carry.
    pub default: Default,
    /// True if a value that a version cannot carry is dropped silently.
    pub ignorable: bool,
}

/// Value of an absent field.
#[derive(Debug, PartialEq, Eq)]
pub enum Default {
    /// Zero, false, empty; null if the field is nullable.
    Natural,
    /// A number other than 0.
    Number(i64),
    /// `true`.
    True,
    /// Empty although the field is nullable.
    Empty,
}

/// Type of a field or of an array element.
#[derive(Debug)]
pub enum Kind {
    /// Fixed width, by its Rust name: `bool`, `i8` ... `f64`.
    Scalar(&'static str),
    /// 16 bytes.
    Uuid,
    /// UTF-8 text.
    String,
    /// Opaque bytes.
    Bytes,
    /// Record batches, which the codec does not look into.
    Records,
    /// Nested fields.
    Struct(Struct),
    /// Any number of elements.
    Array(Box<Kind>),
}

/// A named group of fields.
#[derive(Debug)]
pub struct Struct {
    /// Rust name, unique in its API.
    pub name: String,
    /// Fields in the order of the wire.
    pub fields: Vec<Field>,
    /// Versions in which the struct can occur.
    pub versions: Versions,
}

impl Kind {
    /// True if a decoded value borrows from the frame.
    pub fn borrows(&self) -> bool {
        match self {
            Self::Scalar(_) | Self::Uuid => false,
            Self::String | Self::Bytes | Self::Records => true,
            Self::Struct(inner) => borrows(&inner.fields),
            Self::Array(element) => element.borrows(),
        }
    }

    /// Least number of bytes a value takes on the wire in `version`.
    fn min_size(&self, version: i16, flexible: bool) -> usize {
        match self {
            Self::Scalar(name) => match *name {
                "i16" | "u16" => 2,
                "i32" | "u32" => 4,
                "i64" | "f64" => 8,
                _ => 1,
            },
            Self::Uuid => 16,
            Self::String if !flexible => 2,
            Self::Bytes | Self::Records | Self::Array(_) if !flexible => 4,
            Self::String | Self::Bytes | Self::Records | Self::Array(_) => 1,
            Self::Struct(inner) => {
                let present = |field: &&Field| {
                    field.tag.is_none()
                        && (field.versions.min..=field.versions.max).contains(&version)
                };
                let sizes =
                    inner.fields.iter().filter(present).map(|f| f.kind.min_size(version, flexible));
                sizes.sum::<usize>() + usize::from(flexible)
            }
        }
    }

    /// Least number of bytes a value takes on the wire in any of `versions`, all of which are
    /// flexible or all are not. A value takes at least one byte.
    pub fn min_size_over(&self, versions: Versions, flexible: bool) -> usize {
        let sizes = (versions.min..=versions.max).map(|version| self.min_size(version, flexible));
        sizes.min().unwrap_or(0).max(1)
    }
}

/// True if any of `fields` borrows from the frame.
pub fn borrows(fields: &[Field]) -> bool {
    fields.iter().any(|field| field.kind.borrows())
}
