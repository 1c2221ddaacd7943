//! Writing: `encode` of messages, `write` of every struct.

use super::super::model::{Default, Field, Kind};
use super::{
    Shape, Side, default_value, in_versions, nullable, outside_versions, version_parameter,
};

/// The encoding methods. Requests are encoded by clients only.
pub fn methods(shape: &Shape<'_>) -> String {
    let Shape { name, .. } = shape;
    let gate = if shape.side == Side::Request { "#[cfg(feature = \"client\")]\n" } else { "" };
    let encode = if shape.is_message() { message_method(shape) } else { String::new() };

    let fields: String = shape.fields.iter().map(|field| field_statement(shape, field)).collect();
    let tags = shape.flexibility().guarded(&tagged_section(shape));
    let body = format!("{fields}{tags}Ok(())\n");
    let body = shape.flexibility().binding(&body) + &body;
    let version = version_parameter(&body);
    format!(
        "{gate}impl {name}{} {{\n{encode}\
         fn write(&self, out: &mut OutputBuffer, {version}: i16) -> Result<(), WriteError> {{\n\
         {body}}}\n}}\n\n",
        shape.lifetime("<'_>")
    )
}

fn message_method(shape: &Shape<'_>) -> String {
    let word = shape.side.name().to_lowercase();
    format!(
        "/// Puts the body of this {word} in this version.\n///\n/// # Errors\n///\n\
         /// If the version cannot carry what is set, or there is no such version.\n\
         pub fn encode(&self, out: &mut OutputBuffer, version: i16) -> Result<(), EncodeError> {{\n\
         if !VERSIONS.contains(version) {{\nlet reason = EncodeReason::Version;\n\
         return Err(EncodeError {{ api: API, version, field: \"message\", reason }});\n}}\n\
         self.write(out, version).map_err(|error| error.in_message(API, version))\n}}\n\n"
    )
}

/// Writes a field of the untagged section; for a tagged one, only refuses what cannot be said.
fn field_statement(shape: &Shape<'_>, field: &Field) -> String {
    let refusal = format!("return Err(WriteError::absent(\"{}\"));\n", shape.field_path(field));
    if field.tag.is_some() {
        return match outside_versions(field.versions, shape.versions) {
            Some(absent) if !field.ignorable => {
                format!("if {absent} && {} {{\n{refusal}}}\n", is_set(field))
            }
            _ => String::new(),
        };
    }
    let write = value(shape, field);
    match in_versions(field.versions, shape.versions) {
        None => write,
        Some(present) if field.ignorable => format!("if {present} {{\n{write}}}\n"),
        Some(present) => {
            format!("if {present} {{\n{write}}} else if {} {{\n{refusal}}}\n", is_set(field))
        }
    }
}

fn tagged_section(shape: &Shape<'_>) -> String {
    let mut conditions = String::new();
    let mut count = Vec::new();
    let mut writes = String::new();
    for (tag, field) in shape.tagged() {
        let present = in_versions(field.versions, shape.flexible_versions());
        let version = present.map(|present| format!("{present} && ")).unwrap_or_default();
        let flag = format!("has_{}", field.name);
        conditions += &format!("let {flag} = {version}{};\n", is_set(field));
        writes += &format!(
            "if {flag} {{\nlet mark = out.begin_tagged_field({tag});\n{}\
             out.end_tagged_field(\"{}\", mark)?;\n}}\n",
            value(shape, field),
            shape.field_path(field)
        );
        count.push(format!("u32::from({flag})"));
    }
    let count = if count.is_empty() { "0".to_owned() } else { count.join(" + ") };
    format!("{conditions}out.put_uvarint({count});\n{writes}")
}

/// Expression that is true if the field differs from its default.
fn is_set(field: &Field) -> String {
    let Field { name, .. } = field;
    match (&field.kind, &field.default) {
        (_, Default::Natural) if field.nullable_from.is_some() => format!("self.{name}.is_some()"),
        (Kind::Scalar("bool"), Default::Natural) => format!("self.{name}"),
        (Kind::Scalar("bool"), _) => format!("!self.{name}"),
        (Kind::Uuid, _) => format!("!self.{name}.is_zero()"),
        (Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_), Default::Natural) => {
            format!("!self.{name}.is_empty()")
        }
        _ => format!("self.{name} != {}", default_value(field)),
    }
}

/// Statements that write the field.
fn value(shape: &Shape<'_>, field: &Field) -> String {
    let Field { name, .. } = field;
    let path = shape.field_path(field);
    let compact = shape.flexibility().expression();
    let Some(null) = nullable(field) else {
        return present_value(&field.kind, &format!("self.{name}"), &path, compact);
    };
    if matches!(field.kind, Kind::String) {
        return format!(
            "out.put_optional_string(\"{path}\", self.{name}.as_deref(), {compact}, {null})?;\n"
        );
    }
    format!(
        "match &self.{name} {{\nSome(value) => {{\n{}}}\n\
         None => out.put_null(\"{path}\", {compact}, {null})?,\n}}\n",
        present_value(&field.kind, "value", &path, compact)
    )
}

/// Statements that write a value that is not null. `place` is a place expression, or the name of
/// a reference.
fn present_value(kind: &Kind, place: &str, path: &str, compact: &str) -> String {
    let by_reference =
        if place.starts_with("self.") { format!("&{place}") } else { place.to_owned() };
    let by_value = if place.starts_with("self.") { place.to_owned() } else { format!("*{place}") };
    match kind {
        Kind::Scalar(name) => format!("out.put_{name}({by_value});\n"),
        Kind::Uuid => format!("out.put_uuid({by_value});\n"),
        Kind::String => format!("out.put_string(\"{path}\", {by_reference}, {compact})?;\n"),
        Kind::Bytes => format!("out.put_bytes(\"{path}\", {by_reference}, {compact})?;\n"),
        Kind::Records => format!("out.put_records(\"{path}\", {by_reference}, {compact})?;\n"),
        Kind::Struct(_) => format!("{place}.write(out, version)?;\n"),
        Kind::Array(element) => format!(
            "out.put_length(\"{path}\", {place}.len(), {compact})?;\n\
             for element in {by_reference} {{\n{}}}\n",
            present_value(element, "element", path, compact)
        ),
    }
}
