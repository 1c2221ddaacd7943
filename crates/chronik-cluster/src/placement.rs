//! Where the replicas of a new topic go: round robin over the live nodes, preferred leaders
//! staggered.

use std::collections::BTreeMap;

use chronik_common::{NodeId, TopicId};

use crate::command::{ChangedConfig, CreateTopic, NewPartition};

/// A topic somebody asks for, names and configs already checked.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions; at least 1.
    pub partitions: i32,
    /// Replicas of each partition; at least 1.
    pub replication_factor: i16,
    /// Explicit replicas per partition instead of a choice; empty for a choice.
    pub assignments: BTreeMap<i32, Vec<i32>>,
    /// Configs that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// Why a topic cannot be placed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlacementError {
    /// Fewer than one partition, or more than the limit.
    #[error("the number of partitions must be 1 to {max}, not {asked}")]
    Partitions {
        /// What was asked for.
        asked: i32,
        /// The limit.
        max: i32,
    },
    /// More replicas than nodes, or none.
    #[error("replication factor {asked} needs as many nodes; {nodes} are available")]
    ReplicationFactor {
        /// What was asked for.
        asked: i16,
        /// Live nodes.
        nodes: usize,
    },
    /// An explicit assignment is not usable.
    #[error(
        "the replica assignment must name partitions 0, 1, 2, ... with the same number of distinct, live nodes each"
    )]
    Assignment,
}

/// Partitions one topic may have.
const PARTITIONS_MAX: i32 = 10_000;

/// Turns a request into the command that carries its full result.
///
/// # Errors
/// A [`PlacementError`] when the live `nodes` cannot hold it.
pub fn place_topic(
    spec: &TopicSpec,
    topic_id: TopicId,
    nodes: &[NodeId],
) -> Result<CreateTopic, PlacementError> {
    let partitions =
        if spec.assignments.is_empty() { choose(spec, nodes)? } else { check(spec, nodes)? };
    let configs = spec.configs.iter();
    Ok(CreateTopic {
        name: spec.name.clone(),
        topic_id: topic_id.0.to_vec(),
        partitions,
        configs: configs
            .map(|(key, value)| ChangedConfig { key: key.clone(), value: value.clone() })
            .collect(),
    })
}

fn choose(spec: &TopicSpec, nodes: &[NodeId]) -> Result<Vec<NewPartition>, PlacementError> {
    if !(1..=PARTITIONS_MAX).contains(&spec.partitions) {
        return Err(PlacementError::Partitions { asked: spec.partitions, max: PARTITIONS_MAX });
    }
    let factor = usize::try_from(spec.replication_factor).unwrap_or(0);
    if factor == 0 || factor > nodes.len() {
        return Err(PlacementError::ReplicationFactor {
            asked: spec.replication_factor,
            nodes: nodes.len(),
        });
    }
    let place = |partition: i32| {
        let first = partition as usize;
        let replicas: Vec<i32> =
            (0..factor).map(|replica| nodes[(first + replica) % nodes.len()].0).collect();
        NewPartition { leader: replicas[0], replicas }
    };
    Ok((0..spec.partitions).map(place).collect())
}

fn check(spec: &TopicSpec, nodes: &[NodeId]) -> Result<Vec<NewPartition>, PlacementError> {
    let mut partitions = Vec::new();
    let mut factor = None;
    for (expected, (partition, replicas)) in spec.assignments.iter().enumerate() {
        let mut distinct = replicas.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let is_dense = usize::try_from(*partition) == Ok(expected);
        let is_live = replicas.iter().all(|node| nodes.contains(&NodeId(*node)));
        let is_even = *factor.get_or_insert(replicas.len()) == replicas.len();
        if !is_dense || !is_live || !is_even || distinct.len() != replicas.len() {
            return Err(PlacementError::Assignment);
        }
        let leader = *replicas.first().ok_or(PlacementError::Assignment)?;
        partitions.push(NewPartition { replicas: replicas.clone(), leader });
    }
    if partitions.len() > PARTITIONS_MAX as usize {
        let asked = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        return Err(PlacementError::Partitions { asked, max: PARTITIONS_MAX });
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(partitions: i32, replication_factor: i16) -> TopicSpec {
        TopicSpec {
            name: "t".into(),
            partitions,
            replication_factor,
            assignments: BTreeMap::new(),
            configs: BTreeMap::new(),
        }
    }

    fn leaders(partitions: i32, nodes: &[NodeId]) -> Vec<i32> {
        let command = place_topic(&spec(partitions, 2), TopicId::ZERO, nodes).unwrap();
        command.partitions.iter().map(|partition| partition.leader).collect()
    }

    #[test]
    fn leaders_are_spread_evenly() {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        assert_eq!(leaders(9, &nodes), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        let five: Vec<NodeId> = (1..=5).map(NodeId).collect();
        for node in 1..=5 {
            assert_eq!(leaders(10, &five).iter().filter(|leader| **leader == node).count(), 2);
        }
    }

    #[test]
    fn what_the_nodes_cannot_hold_is_refused() {
        let nodes = [NodeId(1)];
        let place = |spec: TopicSpec| place_topic(&spec, TopicId::ZERO, &nodes);
        assert!(matches!(place(spec(0, 1)), Err(PlacementError::Partitions { .. })));
        assert!(matches!(place(spec(10_001, 1)), Err(PlacementError::Partitions { .. })));
        assert!(place(spec(10_000, 1)).is_ok());
        assert!(matches!(place(spec(1, 2)), Err(PlacementError::ReplicationFactor { .. })));
        assert!(matches!(place(spec(1, 0)), Err(PlacementError::ReplicationFactor { .. })));
        let assigned = |rows: &[(i32, &[i32])]| TopicSpec {
            assignments: rows.iter().map(|(index, nodes)| (*index, nodes.to_vec())).collect(),
            ..spec(-1, -1)
        };
        assert!(place(assigned(&[(0, &[1]), (1, &[1])])).is_ok());
        for bad in [&[(1, &[1][..])][..], &[(0, &[2])], &[(0, &[1, 1])], &[(0, &[])]] {
            assert_eq!(place(assigned(bad)), Err(PlacementError::Assignment), "{bad:?}");
        }
    }
}
