//! Random values for tests and fuzzing: `sample` of every struct.

use super::super::model::{Field, Kind};
use super::{Shape, default_value, in_versions, nullable, version_parameter};

/// The method that makes a random value which `version` can carry.
pub fn methods(shape: &Shape<'_>) -> String {
    let fields: String = shape
        .fields
        .iter()
        .map(|field| format!("{}: {},\n", field.name, member(shape, field)))
        .collect();
    let version = version_parameter(&fields);
    format!(
        "#[cfg(feature = \"sample\")]\nimpl {}{} {{\n\
         /// A random value that this version can carry.\n#[must_use]\n\
         pub fn sample(sampler: &mut Sampler, {version}: i16) -> Self {{\n\
         Self {{\n{fields}}}\n}}\n}}\n\n",
        shape.name,
        shape.lifetime("<'_>")
    )
}

fn member(shape: &Shape<'_>, field: &Field) -> String {
    let plain = value(&field.kind);
    let value = match nullable(field) {
        None => plain,
        Some(null) => format!("sampler.optional({null}, |sampler| {plain})"),
    };
    match in_versions(field.versions, shape.versions) {
        None => value,
        Some(present) => format!("if {present} {{ {value} }} else {{ {} }}", default_value(field)),
    }
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Scalar(name) => format!("sampler.{name}()"),
        Kind::Uuid => "sampler.uuid()".to_owned(),
        Kind::String => "sampler.string()".to_owned(),
        Kind::Bytes => "sampler.bytes()".to_owned(),
        Kind::Records => "sampler.records()".to_owned(),
        Kind::Struct(inner) => format!("{}::sample(sampler, version)", inner.name),
        Kind::Array(element) => format!("sampler.array(|sampler| {})", value(element)),
    }
}
