//! Reading: `decode` of messages, `read` of every struct.

use super::super::model::{Field, Kind, Versions};
use super::{Shape, Side, default_value, in_versions, nullable, version_parameter};

/// The decoding methods. Responses are decoded by clients only.
pub fn methods(shape: &Shape<'_>) -> String {
    let Shape { name, .. } = shape;
    let gate = if shape.side == Side::Response { "#[cfg(feature = \"client\")]\n" } else { "" };
    let borrowed = shape.lifetime("<'a>");
    let frame = if borrowed.is_empty() { "<'_>" } else { "<'a>" };
    let decode = if shape.is_message() { message_method(shape, frame) } else { String::new() };

    let fields: String = shape.fields.iter().map(|field| field_statement(shape, field)).collect();
    let tags = shape.flexibility().guarded(&tagged_section(shape));
    let names: String = shape.fields.iter().map(|field| format!("{},\n", field.name)).collect();
    let body = format!("{fields}{tags}Ok(Self {{\n{names}}})\n");
    let body = shape.flexibility().binding(&body) + &body;
    let version = version_parameter(&body);
    format!(
        "{gate}impl{borrowed} {name}{borrowed} {{\n{decode}\
         fn read(reader: &mut Reader{frame}, {version}: i16) -> Result<Self, ReadError> {{\n\
         {body}}}\n}}\n\n"
    )
}

fn message_method(shape: &Shape<'_>, frame: &str) -> String {
    let word = shape.side.name().to_lowercase();
    format!(
        "/// Reads the body of a {word} of this version.\n///\n/// # Errors\n///\n\
         /// If the bytes are not such a {word}, or there is no such version.\n\
         pub fn decode(reader: &mut Reader{frame}, version: i16) -> Result<Self, DecodeError> {{\n\
         if !VERSIONS.contains(version) {{\nlet reason = DecodeReason::Version;\n\
         return Err(DecodeError {{ api: API, version, field: \"message\", reason }});\n}}\n\
         Self::read(reader, version).map_err(|error| error.in_message(API, version))\n}}\n\n"
    )
}

/// Reads a field of the untagged section; gives a tagged one its default.
fn field_statement(shape: &Shape<'_>, field: &Field) -> String {
    let Field { name, .. } = field;
    let default = default_value(field);
    if field.tag.is_some() {
        return format!("let mut {name} = {default};\n");
    }
    let value = value(shape, field);
    match in_versions(field.versions, shape.versions) {
        None => format!("let {name} = {value};\n"),
        Some(present) => format!("let {name} = if {present} {{ {value} }} else {{ {default} }};\n"),
    }
}

fn tagged_section(shape: &Shape<'_>) -> String {
    let path = shape.own_path();
    if shape.tagged().next().is_none() {
        return format!("reader.skip_tagged_fields(\"{path}\")?;\n");
    }
    let arms: String = shape
        .tagged()
        .map(|(tag, field)| {
            let present = in_versions(field.versions, shape.flexible_versions());
            let guard = present.map(|present| format!(" if {present}")).unwrap_or_default();
            format!("{tag}{guard} => {{ {} = {}; }}\n", field.name, value(shape, field))
        })
        .collect();
    format!(
        "reader.tagged_fields(\"{path}\", |reader, tag| {{\n\
         match tag {{\n{arms}_ => return Ok(false),\n}}\nOk(true)\n}})?;\n"
    )
}

/// Expression that reads the field, with `?` inside.
fn value(shape: &Shape<'_>, field: &Field) -> String {
    let path = shape.field_path(field);
    let compact = shape.flexibility().expression();
    match (&field.kind, nullable(field)) {
        (Kind::Array(element), null) => {
            let size = element_bytes_min(shape, field, element);
            let read = element_reader(element, &path, compact);
            match null {
                None => format!("reader.array(\"{path}\", {compact}, {size}, {read})?"),
                Some(null) => {
                    format!("reader.optional_array(\"{path}\", {compact}, {null}, {size}, {read})?")
                }
            }
        }
        (Kind::Struct(inner), _) => format!("{}::read(reader, version)?", inner.name),
        (kind, None) => match constructor(kind) {
            Some(make) => format!("{make}({}?)", leaf(kind, &path, compact)),
            None => format!("{}?", leaf(kind, &path, compact)),
        },
        (kind, Some(null)) => {
            let reader = if matches!(kind, Kind::String) { "string" } else { "bytes" };
            let make = constructor(kind).unwrap_or("Some");
            format!("reader.optional_{reader}(\"{path}\", {compact}, {null})?.map({make})")
        }
    }
}

/// Expression for the least number of bytes an element takes.
fn element_bytes_min(shape: &Shape<'_>, field: &Field, element: &Kind) -> String {
    let Versions { min, max } = field.versions;
    let first_flexible = shape.first_flexible.unwrap_or(i16::MAX);
    if first_flexible <= min || max < first_flexible {
        return element.min_size_over(field.versions, first_flexible <= min).to_string();
    }
    let plain = element.min_size_over(Versions { min, max: first_flexible - 1 }, false);
    let flexible = element.min_size_over(Versions { min: first_flexible, max }, true);
    if plain == flexible {
        return plain.to_string();
    }
    format!("if flexible {{ {flexible} }} else {{ {plain} }}")
}

/// Closure that reads one element of an array.
fn element_reader(element: &Kind, path: &str, compact: &str) -> String {
    match element {
        Kind::Struct(inner) => format!("|reader| {}::read(reader, version)", inner.name),
        leaf_kind => {
            let made = constructor(leaf_kind).map(|make| format!(".map({make})"));
            format!("|reader| {}{}", leaf(leaf_kind, path, compact), made.unwrap_or_default())
        }
    }
}

/// Call that reads a value without parts.
fn leaf(kind: &Kind, path: &str, compact: &str) -> String {
    match kind {
        Kind::Scalar(name) => format!("reader.{name}(\"{path}\")"),
        Kind::Uuid => format!("reader.uuid(\"{path}\")"),
        Kind::String => format!("reader.string(\"{path}\", {compact})"),
        _ => format!("reader.bytes(\"{path}\", {compact})"),
    }
}

/// What turns a slice into the field's type.
fn constructor(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::String | Kind::Bytes => Some("Cow::Borrowed"),
        Kind::Records => Some("Records::Borrowed"),
        _ => None,
    }
}
