//! The data directory as a whole: one server at a time, one identity for life.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chronik_common::{NodeId, Rng, Uuid};
use chronik_wal::envelope;
use chronik_wal::io::Disk;
use chronik_wal::layout::Layout;
use prost::Message;
use rustix::fs::FlockOperation;

use crate::startup_error::StartError;

const NODE_META_MAGIC: [u8; 4] = *b"CHI1";
/// Format level of data directories this release writes and reads.
const FORMAT_LEVEL: u32 = 1;

/// The file `node.meta`.
#[derive(Clone, PartialEq, Message)]
struct NodeMeta {
    #[prost(bytes = "vec", tag = "1")]
    cluster_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    node_id: i32,
    #[prost(bytes = "vec", tag = "3")]
    disk_id: Vec<u8>,
    #[prost(uint32, tag = "4")]
    format_level: u32,
}

/// Who the data belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster_id: Uuid,
    pub(crate) node_id: NodeId,
    /// This life of the directory: a node that returns with another one has lost its data.
    pub(crate) disk_id: Uuid,
}

/// Held while a server runs on the directory; the operating system lets go of it at exit.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Creates the directory if needed and takes its lock.
pub(crate) fn lock(layout: &Layout) -> Result<DirectoryLock, StartError> {
    let root = layout.root();
    let not_writable = |source| not_writable(root, source);
    std::fs::create_dir_all(root).map_err(not_writable)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(layout.lock())
        .map_err(not_writable)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        let pid = holder.trim().parse().ok();
        return Err(StartError::DirectoryInUse { path: root.to_owned(), pid });
    }
    file.set_len(0).map_err(not_writable)?;
    file.seek(SeekFrom::Start(0)).map_err(not_writable)?;
    writeln!(file, "{}", std::process::id()).map_err(not_writable)?;
    Ok(DirectoryLock { _file: file })
}

fn not_writable(path: &Path, source: std::io::Error) -> StartError {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let owner = existing.and_then(|path| std::fs::metadata(path).ok());
    StartError::DirectoryNotWritable {
        path: path.to_owned(),
        owner: owner.map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777)),
        our_uid: rustix::process::geteuid().as_raw(),
        source,
    }
}

/// Reads the directory's identity, or gives it one at first use.
pub(crate) fn identify(
    disk: &dyn Disk,
    layout: &Layout,
    node_id: NodeId,
    rng: &mut dyn Rng,
) -> Result<Identity, StartError> {
    let path = layout.node_meta();
    if let Some(meta) = envelope::load::<NodeMeta>(disk, &path, NODE_META_MAGIC)? {
        let id = |bytes: &[u8]| bytes.try_into().map(Uuid).ok();
        let parsed = (id(&meta.cluster_id), id(&meta.disk_id));
        let (Some(cluster_id), Some(disk_id), FORMAT_LEVEL) =
            (parsed.0, parsed.1, meta.format_level)
        else {
            return Err(StartError::UnknownFormat { path });
        };
        if meta.node_id != node_id.0 {
            return Err(StartError::WrongNode {
                path: layout.root().to_owned(),
                owner: NodeId(meta.node_id),
                cluster_id,
                asked: node_id,
            });
        }
        return Ok(Identity { cluster_id, node_id, disk_id });
    }
    let identity = Identity { cluster_id: Uuid::random(rng), node_id, disk_id: Uuid::random(rng) };
    let meta = NodeMeta {
        cluster_id: identity.cluster_id.0.to_vec(),
        node_id: node_id.0,
        disk_id: identity.disk_id.0.to_vec(),
        format_level: FORMAT_LEVEL,
    };
    envelope::store(disk, &path, NODE_META_MAGIC, &meta)?;
    Ok(identity)
}
