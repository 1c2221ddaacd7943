//! `[replication]`: who serves consumers.

use crate::key::section;
use crate::kind::Switch;

section! {
    /// Reading from replicas.
    ReplicationConfig at "replication", config => config.replication, {
        /// Followers serve committed records to consumers that are nearer to them (KIP-392).
        /// Off, a follower redirects the consumer to the leader.
        fetch_from_followers: bool = false, Switch,
            variables(&["CHRONIK_FETCH_FROM_FOLLOWERS"]), reserved();
    }
}
