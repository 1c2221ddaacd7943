//! Struct definitions and their defaults.

use super::super::model::{Default, Field, Kind, Versions};
use super::{Shape, default_value};

/// The struct and its `Default`.
pub fn definition(shape: &Shape<'_>) -> String {
    let Shape { name, fields, .. } = shape;
    let doc = if shape.is_message() {
        format!("The {}.", shape.side.name().to_lowercase())
    } else {
        format!("Element or value of `{}`.", shape.path)
    };
    let members: String = fields
        .iter()
        .map(|field| {
            format!("/// {}\npub {}: {},\n", field_doc(field), field.name, field_type(field))
        })
        .collect();
    let natural = fields.iter().all(|field| field.default == Default::Natural);
    let derived = if natural { ", Default" } else { "" };
    let mut code = format!(
        "/// {doc}\n#[derive(Debug, Clone, PartialEq{derived})]\n\
         pub struct {name}{} {{\n{members}}}\n\n",
        shape.lifetime("<'a>")
    );
    if !natural {
        let values: String =
            fields.iter().map(|f| format!("{}: {},\n", f.name, default_value(f))).collect();
        code += &format!(
            "impl Default for {name}{} {{\nfn default() -> Self {{\n\
             Self {{\n{values}}}\n}}\n}}\n\n",
            shape.lifetime("<'_>")
        );
    }
    code
}

fn field_doc(field: &Field) -> String {
    let Versions { min, max } = field.versions;
    let mut doc =
        if min == max { format!("Version {min}") } else { format!("Versions {min} to {max}") };
    match field.nullable_from {
        Some(from) if from == field.versions.min => doc += "; nullable",
        Some(from) => doc += &format!("; nullable from {from}"),
        None => {}
    }
    if let Some(tag) = field.tag {
        doc += &format!("; tag {tag}");
    }
    if field.ignorable {
        doc += "; dropped in other versions";
    }
    doc + "."
}

fn field_type(field: &Field) -> String {
    let plain = kind_type(&field.kind);
    if field.nullable_from.is_some() { format!("Option<{plain}>") } else { plain }
}

fn kind_type(kind: &Kind) -> String {
    match kind {
        Kind::Scalar(name) => (*name).to_owned(),
        Kind::Uuid => "Uuid".to_owned(),
        Kind::String => "Cow<'a, str>".to_owned(),
        Kind::Bytes => "Cow<'a, [u8]>".to_owned(),
        Kind::Records => "Records<'a>".to_owned(),
        Kind::Struct(inner) if kind.borrows() => format!("{}<'a>", inner.name),
        Kind::Struct(inner) => inner.name.clone(),
        Kind::Array(element) => format!("Vec<{}>", kind_type(element)),
    }
}
