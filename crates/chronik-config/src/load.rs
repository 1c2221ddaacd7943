//! The loader: gathers assignments from every source, applies them in order of rank, and
//! reports all problems together.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::kind::Named;
use crate::nearest::nearest;
use crate::validate::validate;
use crate::{Config, Key, LoadError, Problem, Profile, Setting, Value, Warning};

/// Variables that the product reads and that set no key.
const OTHER_VARIABLES: &[&str] = &[CONFIG_VARIABLE];
const CONFIG_VARIABLE: &str = "CHRONIK_CONFIG";
const PROFILE_KEY: &str = "node.profile";
/// Keys that can ask for a cluster; the first can also decline one.
const CLUSTER_REQUESTS: [&str; 3] =
    ["cluster.enabled", "cluster.peers.nodes", "cluster.discovery.mode"];
const FILE_NAME: &str = "chronik.toml";

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The default of the key.
    BuiltIn,
    /// A profile.
    Profile(Profile),
    /// A line of the file, from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// `--set`.
    Set,
    /// Another flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Profile(profile) => write!(f, "profile {}", profile.name()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A configuration file, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFile {
    /// Its path, as problems name it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl ConfigFile {
    /// Reads the file that `named` or else `CHRONIK_CONFIG` names, which must exist, or else the
    /// first of `usual_places` that does. No file at all is fine.
    fn find(
        named: Option<&Path>,
        environment: &[(String, String)],
        usual_places: &[PathBuf],
    ) -> Result<Option<Self>, LoadError> {
        if let Some(path) = named.or_else(|| path_in(environment, CONFIG_VARIABLE)) {
            return Self::read(path).map(Some).map_err(|error| unreadable(path, &error));
        }
        for path in usual_places {
            match Self::read(path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        Ok(None)
    }

    fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), text: std::fs::read_to_string(path)? })
    }
}

/// The path that a variable holds, if it is set and not empty.
fn path_in<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a Path> {
    let found = environment.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| Path::new(value))
}

/// `./chronik.toml`, `$XDG_CONFIG_HOME/chronik/chronik.toml` and `/etc/chronik/chronik.toml`.
fn usual_places(environment: &[(String, String)]) -> Vec<PathBuf> {
    let user = path_in(environment, "XDG_CONFIG_HOME")
        .map(Path::to_owned)
        .or_else(|| path_in(environment, "HOME").map(|home| home.join(".config")));
    let user = user.map(|directory| directory.join("chronik").join(FILE_NAME));
    let system = Path::new("/etc/chronik").join(FILE_NAME);
    [Some(PathBuf::from(FILE_NAME)), user, Some(system)].into_iter().flatten().collect()
}

/// Service accounts have home directories that are missing or no directory at all.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: &io::Error) -> LoadError {
    let problem = Problem::UnreadableFile { path: path.to_owned(), reason: error.kind() };
    LoadError { problems: vec![problem], warnings: Vec::new() }
}

/// A setting given by its own command-line flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// The flag with its dashes, for example `--kafka-port`.
    pub name: &'static str,
    /// Path of the key it sets.
    pub key: &'static str,
    /// Its argument.
    pub value: String,
}

/// Which server is being configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// A server for real data.
    #[default]
    Server,
    /// A developer's or a measuring server, where debug keys are allowed.
    Dev,
}

/// Everything the loader looks at.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<ConfigFile>,
    /// Names and values of the environment.
    pub environment: Vec<(String, String)>,
    /// Arguments of `--set`, as `section.key=value`, in order.
    pub set: Vec<String>,
    /// Settings given by their own flags.
    pub flags: Vec<Flag>,
    /// Which server is being configured.
    pub mode: Mode,
    /// True if the command line says `standalone`: a cluster that only the file asks for is not
    /// formed; one that a variable or a flag asks for is.
    pub is_standalone: bool,
    /// Addresses of this host as people read them, for example `10.0.1.10 (eth0)`; for messages.
    pub host_addresses: Vec<String>,
}

impl Sources {
    /// The environment of this process and the configuration file, which is `config_file`, or
    /// else what `CHRONIK_CONFIG` names, or else the first found of `./chronik.toml`,
    /// `$XDG_CONFIG_HOME/chronik/chronik.toml` and `/etc/chronik/chronik.toml`.
    ///
    /// # Errors
    /// One [`Problem::UnreadableFile`].
    pub fn from_process(config_file: Option<&Path>) -> Result<Self, LoadError> {
        let environment = process_environment();
        let file = ConfigFile::find(config_file, &environment, &usual_places(&environment))?;
        Ok(Self { file, environment, ..Self::default() })
    }
}

/// The environment of this process. Characters that are not Unicode are replaced.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect()
}

/// A checked configuration that remembers where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The tree.
    pub config: Config,
    /// What is odd about the sources.
    pub warnings: Vec<Warning>,
    /// Origins of the keys that are not at their built-in value, by path.
    origins: BTreeMap<&'static str, Origin>,
}

/// One line of `config list`.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The key.
    pub key: &'static str,
    /// Its value; `None` if it is not set.
    pub value: Option<Value>,
    /// Where the value came from.
    pub origin: Origin,
}

impl Loaded {
    /// Where the value of `key` came from; [`Origin::BuiltIn`] for a path that is no key.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::BuiltIn)
    }

    /// Every key with its value and origin, in the order of the reference page.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |key: &'static Key| Entry {
            key: key.path,
            value: key.value_in(&self.config),
            origin: self.origin(key.path),
        };
        Config::keys().map(entry).collect()
    }

    /// The whole tree as a `chronik.toml`; with `origins`, each line ends with a comment that
    /// says where its value came from. Keys that are not set are comments.
    #[must_use]
    pub fn to_toml(&self, origins: bool) -> String {
        let mut text = String::new();
        for section in Config::sections() {
            let blank = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{blank}[{}]\n", section.path));
            for key in section.keys {
                let name = key.path.rsplit('.').next().expect("a split has a last part");
                let line = match key.value_in(&self.config) {
                    Some(value) => format!("{name} = {value}"),
                    None => format!("# {name} is not set"),
                };
                let origin =
                    if origins { self.origin(key.path).to_string() } else { String::new() };
                let separator = if origins { "  # " } else { "" };
                text.push_str(&format!("{line}{separator}{origin}\n"));
            }
        }
        text
    }

    /// The setting that asks for a cluster, if [`Config::wants_cluster`] is true: what to name
    /// in a message, and whether a flag or the file asked.
    #[must_use]
    pub fn cluster_request(&self) -> Option<Setting> {
        let [enabled, peers, discovery] = CLUSTER_REQUESTS;
        let cluster = &self.config.cluster;
        let asking = if cluster.enabled == Some(true) {
            enabled
        } else if cluster.peers.nodes.is_empty() {
            discovery
        } else {
            peers
        };
        self.config.wants_cluster().then(|| self.setting(asking))
    }

    fn ignore_cluster_of_file(&mut self) {
        let is_from_file = |key: &&str| {
            matches!(self.origin(key), Origin::BuiltIn | Origin::Profile(_) | Origin::File { .. })
        };
        if CLUSTER_REQUESTS.iter().all(is_from_file) {
            self.config.cluster.enabled = Some(false);
            self.origins.insert(CLUSTER_REQUESTS[0], Origin::Flag("standalone"));
        }
    }

    /// The key at `path` with its value and origin.
    ///
    /// # Panics
    /// If there is no such key.
    pub(crate) fn setting(&self, path: &'static str) -> Setting {
        let key = Config::key(path).expect("callers name keys of the tables");
        Setting { key: path, value: key.value_in(&self.config), origin: self.origin(path) }
    }
}

/// Merges `sources` into a configuration, lowest rank first: built-in, profile, file,
/// environment, `--set`, flag.
///
/// # Errors
/// Every problem of every source, together.
pub fn load(sources: &Sources) -> Result<Loaded, LoadError> {
    let mut gathered = Gathered::default();
    if let Some(file) = &sources.file {
        gathered.add_file(file);
    }
    gathered.add_environment(&sources.environment);
    gathered.add_sets(&sources.set);
    gathered.add_flags(&sources.flags);

    let mut loaded =
        Loaded { config: Config::default(), warnings: gathered.warnings, origins: BTreeMap::new() };
    let mut problems = gathered.problems;
    let profile = profile_of(&gathered.assignments);
    for assignment in profile_assignments(profile).iter().chain(&gathered.assignments) {
        let Assignment { key, name, value, origin } = assignment;
        if key.store(&mut loaded.config, value) {
            loaded.origins.insert(key.path, origin.clone());
        } else {
            problems.push(Problem::InvalidValue {
                origin: origin.clone(),
                key: name.clone(),
                value: value.clone(),
                expected: key.expected(),
            });
        }
    }
    if sources.is_standalone {
        loaded.ignore_cluster_of_file();
    }
    problems.extend(validate(&loaded, sources.mode, &sources.host_addresses));
    if problems.is_empty() {
        Ok(loaded)
    } else {
        Err(LoadError { problems, warnings: loaded.warnings })
    }
}

/// A value on its way to a key.
struct Assignment {
    key: &'static Key,
    /// The name it was given under, for messages.
    name: String,
    value: Value,
    origin: Origin,
}

/// The last legal mention of the profile; an illegal one is reported when it is applied.
fn profile_of(assignments: &[Assignment]) -> Profile {
    let mut config = Config::default();
    for assignment in assignments.iter().filter(|assignment| assignment.key.path == PROFILE_KEY) {
        assignment.key.store(&mut config, &assignment.value);
    }
    config.node.profile
}

fn profile_assignments(profile: Profile) -> Vec<Assignment> {
    let assignment = |(path, value): &(&'static str, &'static str)| Assignment {
        key: Config::key(path).expect("a profile names keys of the tables"),
        name: (*path).to_owned(),
        value: Value::Word((*value).to_owned()),
        origin: Origin::Profile(profile),
    };
    profile.settings().iter().map(assignment).collect()
}

/// What the sources said, in ascending rank.
#[derive(Default)]
struct Gathered {
    assignments: Vec<Assignment>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Gathered {
    fn add_file(&mut self, file: &ConfigFile) {
        let (document, errors) = DeTable::parse_recoverable(&file.text);
        for error in errors {
            let position = error.span().map_or(0, |span| span.start);
            let reason = error.message().trim_end_matches('.').replace('\n', ", ");
            self.problems.push(Problem::NotToml { origin: place(file, position), reason });
        }
        self.add_table(file, "", document.get_ref());
    }

    fn add_table(&mut self, file: &ConfigFile, prefix: &str, table: &DeTable<'_>) {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in members {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let origin = place(file, name.span().start);
            if let Some(key) = Config::key(&path) {
                self.add_file_key(key, path, value, origin);
            } else if !is_section(&path) {
                let nearest = nearest_key(&path, prefix);
                self.problems.push(Problem::UnknownKey { origin, key: path, nearest });
            } else if let DeValue::Table(members) = value.get_ref() {
                self.add_table(file, &path, members);
            } else {
                let expected = format!("a table, written [{path}]");
                let value = untyped(value.get_ref());
                self.problems.push(Problem::InvalidValue { origin, key: path, value, expected });
            }
        }
    }

    fn add_file_key(
        &mut self,
        key: &'static Key,
        name: String,
        value: &Spanned<DeValue<'_>>,
        origin: Origin,
    ) {
        let earlier = self.assignments.iter().find(|earlier| earlier.key.path == key.path);
        if let Some(earlier) = earlier {
            let first = earlier.origin.clone();
            self.problems.push(Problem::GivenTwice { key: key.path, name, first, second: origin });
        } else {
            self.assignments.push(Assignment {
                key,
                name,
                value: untyped(value.get_ref()),
                origin,
            });
        }
    }

    /// An empty variable counts as absent, as container tools set it for "nothing". Of several
    /// variables of one key the first in the order of its table is used.
    fn add_environment(&mut self, environment: &[(String, String)]) {
        let values: BTreeMap<&str, &str> = environment
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let names: Vec<(&'static Key, Vec<String>)> =
            Config::keys().map(|key| (key, variables_of(key))).collect();
        for (key, names) in &names {
            let found = names.iter().find_map(|name| Some((name, values.get(name.as_str())?)));
            if let Some((name, value)) = found {
                self.assignments.push(Assignment {
                    key,
                    name: key.path.to_owned(),
                    value: Value::Word((*value).to_owned()),
                    origin: Origin::Variable(name.clone()),
                });
            }
        }
        let known: Vec<&str> = names
            .iter()
            .flat_map(|(_, names)| names)
            .map(String::as_str)
            .chain(OTHER_VARIABLES.iter().copied())
            .collect();
        for name in environment.iter().map(|(name, _)| name.as_str()) {
            if name == NO_EFFECT.0 {
                self.warnings.push(Warning::NoEffect { name: NO_EFFECT.0, reason: NO_EFFECT.1 });
            } else if name.starts_with("CHRONIK_") && !known.contains(&name) {
                let nearest = nearest(name, known.iter().copied()).map(str::to_owned);
                self.warnings.push(Warning::UnknownVariable { name: name.to_owned(), nearest });
            }
        }
    }

    fn add_sets(&mut self, arguments: &[String]) {
        for argument in arguments {
            let Some((path, value)) = argument.split_once('=') else {
                self.problems.push(Problem::NotAnAssignment { argument: argument.clone() });
                continue;
            };
            let (path, value) = (path.trim().to_owned(), Value::Word(value.to_owned()));
            match Config::key(&path) {
                Some(key) => self.assignments.push(Assignment {
                    key,
                    name: path,
                    value,
                    origin: Origin::Set,
                }),
                None => {
                    let nearest = nearest_key(&path, path.rsplit_once('.').map_or("", |(s, _)| s));
                    let origin = Origin::Set;
                    self.problems.push(Problem::UnknownKey { origin, key: path, nearest });
                }
            }
        }
    }

    fn add_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            self.assignments.push(Assignment {
                key: Config::key(flag.key).expect("a flag names a key of the tables"),
                name: flag.key.to_owned(),
                value: Value::Word(flag.value.clone()),
                origin: Origin::Flag(flag.name),
            });
        }
    }
}

/// The variable that is accepted and changes nothing, and why.
const NO_EFFECT: (&str, &str) =
    ("CHRONIK_USE_METADATA_WAL", "metadata always uses the replicated WAL");

/// Every variable of `key`, most trusted first.
fn variables_of(key: &Key) -> Vec<String> {
    let extra = key.extra_variables.iter().map(|name| (*name).to_owned());
    [key.variable()].into_iter().chain(extra).collect()
}

/// Names of the file: paths and aliases.
fn file_names() -> impl Iterator<Item = &'static str> {
    Config::keys().flat_map(|key| key.aliases.iter().copied().chain([key.path]))
}

fn is_section(path: &str) -> bool {
    file_names().any(|name| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        || Config::sections().iter().any(|section| section.path == path)
}

/// The known key or section closest to `path`; without `section` if both are in it.
fn nearest_key(path: &str, section: &str) -> Option<String> {
    let in_section = |name: &'static str| {
        name.strip_prefix(section)?.strip_prefix('.').filter(|rest| !rest.contains('.'))
    };
    let last = path.rsplit('.').next().unwrap_or(path);
    let sections = Config::sections().iter().map(|section| section.path);
    if section.is_empty() {
        return nearest(path, sections.chain(file_names())).map(str::to_owned);
    }
    nearest(last, file_names().filter_map(in_section))
        .or_else(|| nearest(path, file_names()))
        .or_else(|| file_names().find(|name| name.rsplit('.').next() == Some(last)))
        .map(str::to_owned)
}

fn place(file: &ConfigFile, position: usize) -> Origin {
    let before = file.text.get(..position).unwrap_or(&file.text);
    Origin::File { path: file.path.clone(), line: before.matches('\n').count() + 1 }
}

fn untyped(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Other(number.to_string()), Value::Integer),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Datetime(moment) => Value::Other(moment.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| untyped(item.get_ref())).collect())
        }
        DeValue::Table(members) => {
            let member = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                (name.to_string(), untyped(value.get_ref()))
            };
            Value::Table(members.iter().map(member).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plan.toml");
    const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    const MISSING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/missing.toml");
    const BELOW_A_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plan.toml/chronik.toml");

    /// The path found, or the message.
    fn find(named: Option<&str>, variable: &str, usual: &[&str]) -> Result<Option<String>, String> {
        let environment = [(CONFIG_VARIABLE.to_owned(), variable.to_owned())];
        let usual: Vec<_> = usual.iter().map(PathBuf::from).collect();
        let file = ConfigFile::find(named.map(Path::new), &environment, &usual);
        let path = |file: ConfigFile| file.path.display().to_string();
        file.map(|file| file.map(path)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_named_file_wins_over_the_variable_and_the_variable_over_the_usual_places() {
        let plan = Ok(Some(PLAN.to_owned()));
        assert_eq!(find(Some(PLAN), MISSING, &[MISSING]), plan);
        assert_eq!(find(None, PLAN, &[MISSING]), plan);
        assert_eq!(find(None, "", &[MISSING, BELOW_A_FILE, PLAN, DIRECTORY]), plan);
        assert_eq!(find(None, "", &[MISSING, BELOW_A_FILE]), Ok(None));
    }

    #[test]
    fn a_named_file_must_be_readable_and_a_usual_one_if_it_exists() {
        let message = find(Some(MISSING), PLAN, &[PLAN]).expect_err("there is no such file");
        assert!(message.starts_with("E065 cannot read /"), "{message}");
        assert!(message.contains("missing.toml: entity not found."), "{message}");
        assert!(find(None, DIRECTORY, &[PLAN]).is_err());
        assert!(find(None, "", &[DIRECTORY, PLAN]).is_err());
    }

    #[test]
    fn the_usual_places_are_here_the_users_and_the_systems() {
        let environment = |name: &str| [(name.to_owned(), "/home/ada".to_owned())];
        let places = |environment: &[(String, String)]| {
            let places = usual_places(environment);
            places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let system = "/etc/chronik/chronik.toml";
        assert_eq!(places(&[]), format!("chronik.toml {system}"));
        assert_eq!(
            places(&environment("XDG_CONFIG_HOME")),
            format!("chronik.toml /home/ada/chronik/chronik.toml {system}")
        );
        assert_eq!(
            places(&environment("HOME")),
            format!("chronik.toml /home/ada/.config/chronik/chronik.toml {system}")
        );
    }
}
