//! `mod.rs` of the generated code: the modules, requests and responses of any API, and the facts
//! that a test compares with the table of APIs.

use super::super::model::{Api, borrows};
use super::{HEADER, Side, module_name};

const SCHEMA_FACTS_TYPE: &str = "\
/// The `api` line of a schema file.
#[cfg(test)]
pub(crate) struct SchemaFacts {
    pub(crate) key: i16,
    pub(crate) name: &'static str,
    pub(crate) versions: VersionRange,
    pub(crate) served: VersionRange,
    pub(crate) flexible: Option<i16>,
    pub(crate) plain_response_header: bool,
}

";

/// `mod.rs`: the modules, and requests and responses of any API.
pub fn joining_module(apis: &[Api]) -> String {
    let each = |line: &dyn Fn(&Api, &str) -> String| -> String {
        apis.iter().map(|api| line(api, &module_name(api))).collect()
    };
    let modules =
        each(&|api, module| format!("/// {} (key {}).\npub mod {module};\n", api.name, api.key));
    let api_lines = each(&|api, _| {
        let Api { key, versions, served, flexible, plain_response_header, .. } = api;
        let (min, max) = (versions.min, versions.max);
        let (served_min, served_max) = (served.min, served.max);
        format!(
            "SchemaFacts {{ key: {key}, name: \"{}\", \
             versions: VersionRange {{ min: {min}, max: {max} }}, \
             served: VersionRange {{ min: {served_min}, max: {served_max} }}, \
             flexible: {flexible:?}, plain_response_header: {plain_response_header} }},\n",
            api.name
        )
    });
    let mut code = format!("//! {HEADER} the files in `schema/`.\n\n{modules}\n");
    code += "#[cfg(test)]\nuse crate::api_key::VersionRange;\n";
    code += "use crate::api_key::ApiKey;\nuse crate::error::DecodeError;\n";
    code += "#[cfg(feature = \"client\")]\nuse crate::error::EncodeError;\n";
    code += "#[cfg(feature = \"client\")]\nuse crate::output::OutputBuffer;\n";
    code += "use crate::primitive::Reader;\n";
    code += "#[cfg(feature = \"sample\")]\nuse crate::sample::Sampler;\n\n";
    code += &any_message(apis, Side::Request);
    code += &any_message(apis, Side::Response);
    code += SCHEMA_FACTS_TYPE;
    code + &format!(
        "#[cfg(test)]\npub(crate) const SCHEMA_FACTS: &[SchemaFacts] = &[\n{api_lines}];\n"
    )
}

/// The enum over all requests or all responses, with its methods and its decode function.
fn any_message(apis: &[Api], side: Side) -> String {
    let name = side.name();
    let word = name.to_lowercase();
    let client = "#[cfg(feature = \"client\")]\n";
    let gate = if side == Side::Response { client } else { "" };
    let each = |line: &dyn Fn(&Api) -> String| -> String { apis.iter().map(line).collect() };
    let message = |api: &Api| format!("{}::{}{name}", module_name(api), api.name);
    let variants = each(&|api| {
        let lifetime = if borrows(side.fields(api)) { "<'a>" } else { "" };
        format!("/// {}.\n{}({}{lifetime}),\n", api.name, api.name, message(api))
    });
    let keys = each(&|api| format!("Self::{0}(_) => ApiKey::{0},\n", api.name));
    let encoders = each(&|api| format!("Self::{}(it) => it.encode(out, version),\n", api.name));
    let decoders = each(&|api| {
        format!(
            "ApiKey::{0} => {1}::decode(&mut reader, version).map({name}::{0}),\n",
            api.name,
            message(api)
        )
    });
    let samples = each(&|api| {
        format!(
            "ApiKey::{0} => Self::{0}({1}::sample(sampler, version)),\n",
            api.name,
            message(api)
        )
    });
    format!(
        "/// A {word} of any API.\n{gate}#[derive(Debug, Clone, PartialEq)]\n\
         pub enum {name}<'a> {{\n{variants}}}\n\n\
         {gate}impl {name}<'_> {{\n\
         /// The API this is a {word} of.\n#[must_use]\n\
         pub fn api(&self) -> ApiKey {{\nmatch self {{\n{keys}}}\n}}\n\n\
         /// Puts the body in this version.\n///\n/// # Errors\n///\n\
         /// If the version cannot carry what is set.\n{client}\
         pub fn encode(&self, out: &mut OutputBuffer, version: i16) -> Result<(), EncodeError> {{\n\
         match self {{\n{encoders}}}\n}}\n\n\
         /// A random {word} that this version can carry.\n\
         #[cfg(feature = \"sample\")]\n#[must_use]\n\
         pub fn sample(api: ApiKey, version: i16, sampler: &mut Sampler) -> Self {{\n\
         match api {{\n{samples}}}\n}}\n}}\n\n\
         /// Reads the body of a {word}; the result borrows from it.\n///\n\
         /// Bytes after the last field are ignored, as Kafka ignores them.\n\
         ///\n/// # Errors\n///\n\
         /// If the bytes are not a {word} of this API and version.\n{gate}\
         pub fn decode_{word}(api: ApiKey, version: i16, body: &[u8]) \
         -> Result<{name}<'_>, DecodeError> {{\n\
         let mut reader = Reader::new(body);\nmatch api {{\n{decoders}}}\n}}\n\n"
    )
}
