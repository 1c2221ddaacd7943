//! `[node]`: who this server is to its clients, where its data is, how many cores it uses.

use std::path::PathBuf;

use crate::key::section;
use crate::kind::{Choice, FilePath, HostAndPort, Maybe, number};
use crate::{Address, Profile};

section! {
    /// This server: its data directory, the address clients are told, and its cores. The node id
    /// is `cluster.node_id`.
    NodeConfig at "node", config => config.node, {
        /// Directory of everything this server keeps. A relative path starts at the working
        /// directory of the process. Two servers must never share it: the second one refuses to
        /// start. Network and overlay file systems may lie about `fsync`; the server warns there.
        data_dir: PathBuf = PathBuf::from("./data"), FilePath, variables(&["CHRONIK_DATA_DIR"]);

        /// Host and port that clients are told to connect to, after their first connection
        /// anywhere. Without a port, the Kafka port is told. Unset means `localhost`, or the host
        /// of `listener.bind` if that names one address. A name that clients cannot reach makes
        /// every client fail right after a successful bootstrap, which is the most common
        /// mistake with Kafka-compatible servers. A wildcard such as 0.0.0.0 is refused. An
        /// address other than loopback also opens the listeners to the network, see
        /// `listener.bind`.
        advertised_addr: Option<Address> = None, Maybe(HostAndPort),
            variables(&["CHRONIK_ADVERTISED_ADDR", "CHRONIK_ADVERTISE"]);

        /// Number of request-serving threads; 0 means one per core. Each thread owns its
        /// connections, so fewer threads than cores leaves room for other programs on the
        /// machine, and more threads than cores only adds context switches.
        shards: u16 = 0, number(0, 1_024);

        /// A named set of defaults: `latency`, `balanced` or `throughput`. A profile ranks below
        /// the file: whatever is set anywhere else wins. The values of each are listed at the end
        /// of this page.
        profile: Profile = Profile::Balanced, Choice, variables(&["CHRONIK_PROFILE"]);
    }
}
