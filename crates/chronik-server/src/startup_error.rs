//! Why a server does not start, in the words an operator can act on: what, evidence, ways out.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use chronik_common::{NodeId, Uuid};
use chronik_config::LoadError;
use chronik_wal::WalError;

/// A refusal to start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration has problems; each carries its code.
    Configuration(LoadError),
    /// The settings ask for a cluster.
    ClusterNotAvailable {
        /// Which setting, and where it came from.
        asked_by: String,
    },
    /// A port is taken.
    CannotListen {
        /// The address.
        address: SocketAddr,
        /// The flag that changes the port.
        flag: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Clients would be told a wildcard address.
    WildcardAdvertised {
        /// The address.
        host: String,
    },
    /// The data directory cannot be written.
    DirectoryNotWritable {
        /// The directory.
        path: PathBuf,
        /// Owner and mode of it or of its nearest existing parent.
        owner: Option<(u32, u32, u32)>,
        /// Who we run as.
        our_uid: u32,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another server holds the data directory.
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// The data belongs to another node.
    WrongNode {
        /// The directory.
        path: PathBuf,
        /// The node it belongs to.
        owner: NodeId,
        /// The cluster it belongs to.
        cluster_id: Uuid,
        /// The node id we were given.
        asked: NodeId,
    },
    /// The directory was written by a release with another format.
    UnknownFormat {
        /// The file that says so.
        path: PathBuf,
    },
    /// The metadata log is damaged: nobody knows which topics exist.
    MetadataDamaged {
        /// Directory of the metadata log.
        path: PathBuf,
    },
    /// Reading the data failed.
    Storage(WalError),
    /// The operating system refused something basic.
    System(std::io::Error),
}

impl From<WalError> for StartError {
    fn from(error: WalError) -> Self {
        Self::Storage(error)
    }
}

impl StartError {
    /// Exit code of `chronik-server`: 2 for usage and configuration, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::ClusterNotAvailable { .. } => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(f),
            Self::ClusterNotAvailable { asked_by } => write!(
                f,
                "{asked_by} asks for a cluster, which this release does not form yet. Remove the \
                 setting, or start with the word standalone, to run a single server."
            ),
            Self::CannotListen { address, flag, source } => {
                write!(f, "E001 cannot listen on {address}: ")?;
                match crate::net::port_holder::find(address.port()) {
                    Some(holder) => write!(f, "in use by pid {} ({})", holder.pid, holder.name)?,
                    None => write!(f, "{source}")?,
                }
                let other = address.port().saturating_add(100);
                write!(f, ". Stop it, or pass {flag} {other} (dev: --port 0 picks a free one).")
            }
            Self::WildcardAdvertised { host } => write!(
                f,
                "E002 clients would be told to connect to {host}, which never works. Pass \
                 --advertised-addr <name clients can reach>."
            ),
            Self::DirectoryNotWritable { path, owner, our_uid, source } => {
                write!(f, "E010 cannot write {}", path.display())?;
                if let Some((uid, gid, mode)) = owner {
                    write!(f, " (owner {uid}:{gid} {mode:04o}, we run as uid {our_uid})")?;
                }
                write!(
                    f,
                    ": {source}. Change its owner (chown -R {our_uid} {}), or pass --data-dir.",
                    path.display()
                )
            }
            Self::DirectoryInUse { path, pid } => {
                write!(f, "E011 {} is locked by ", path.display())?;
                match pid {
                    Some(pid) => write!(f, "pid {pid}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str(
                    ". Two servers on one directory would corrupt it. Stop that server, or pass \
                     another --data-dir.",
                )
            }
            Self::WrongNode { path, owner, cluster_id, asked } => write!(
                f,
                "E030 {} belongs to node {owner} of cluster {cluster_id}, but --node-id {asked} \
                 was given. Start with --node-id {owner}, or use another --data-dir.",
                path.display()
            ),
            Self::UnknownFormat { path } => write!(
                f,
                "E081 {} was written in a format this release does not know. Start the release \
                 that wrote it, or use another --data-dir.",
                path.display()
            ),
            Self::MetadataDamaged { path } => write!(
                f,
                "E082 the metadata log in {} is damaged; starting would forget topics that hold \
                 data. Restore the directory from a backup of the same moment as the data.",
                path.display()
            ),
            Self::Storage(error) => write!(f, "cannot read the data: {error}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
