//! Applying a committed command: a total, pure function. The same log gives the same image on
//! every node and at every restart.

use std::sync::Arc;

use chronik_common::{Incarnation, LeaderEpoch, Lsn, NodeId, PartitionEpoch, TopicId, Uuid};

use crate::command::{
    AllocateProducerIds, Change, CreateTopic, DeleteTopic, MetadataCommand, RegisterNode, read_id,
};
use crate::image::{MetadataImage, Node, PartitionRow, Topic};

/// What an accepted command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The node runs under this incarnation.
    NodeRegistered(Incarnation),
    /// The topic exists.
    TopicCreated(Arc<Topic>),
    /// The topic is gone.
    TopicDeleted(Arc<Topic>),
    /// The producer ids `first..first + count` belong to the node that asked.
    ProducerIdsAllocated {
        /// First id of the block.
        first: i64,
        /// Ids in the block.
        count: i64,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// A topic of that name exists.
    #[error("a topic of that name exists")]
    TopicExists,
    /// A topic's name differs from another's only by '.' against '_'.
    #[error("the name collides with another topic's ('.' against '_')")]
    NameCollides,
    /// A topic's id was used before.
    #[error("the topic id is taken")]
    TopicIdTaken,
    /// No topic of that id.
    #[error("no topic of that id")]
    UnknownTopic,
    /// The command is of a newer release or malformed.
    #[error("the command is not understood")]
    NotUnderstood,
}

/// Applies the command at position `lsn`. A rejected command changes the version only.
pub fn apply(
    image: &MetadataImage,
    lsn: Lsn,
    command: &MetadataCommand,
) -> (MetadataImage, Result<Applied, Rejection>) {
    assert!(lsn > image.version, "commands apply in order: {lsn:?} after {:?}", image.version);
    let mut next = image.clone();
    next.version = lsn;
    let result = match &command.change {
        Some(Change::RegisterNode(register)) => register_node(&mut next, lsn, register),
        Some(Change::CreateTopic(create)) => create_topic(&mut next, create),
        Some(Change::DeleteTopic(delete)) => delete_topic(&mut next, delete),
        Some(Change::AllocateProducerIds(allocate)) => allocate_producer_ids(&mut next, *allocate),
        None => Err(Rejection::NotUnderstood),
    };
    (next, result)
}

fn register_node(
    image: &mut MetadataImage,
    lsn: Lsn,
    register: &RegisterNode,
) -> Result<Applied, Rejection> {
    let id = NodeId(register.node_id);
    let incarnation = Incarnation(lsn.0);
    let node = Node {
        id,
        host: register.host.clone(),
        port: u16::try_from(register.port).map_err(|_| Rejection::NotUnderstood)?,
        rack: Some(register.rack.clone()).filter(|rack| !rack.is_empty()),
        disk_id: Uuid(
            register.disk_id.as_slice().try_into().map_err(|_| Rejection::NotUnderstood)?,
        ),
        incarnation,
    };
    image.nodes.insert(id, Arc::new(node));
    Ok(Applied::NodeRegistered(incarnation))
}

fn create_topic(image: &mut MetadataImage, create: &CreateTopic) -> Result<Applied, Rejection> {
    let id = topic_id(&create.topic_id)?;
    if image.topics.contains_key(create.name.as_str()) {
        return Err(Rejection::TopicExists);
    }
    if image.colliding_topic(&create.name).is_some() {
        return Err(Rejection::NameCollides);
    }
    if image.names.contains_key(&id) {
        return Err(Rejection::TopicIdTaken);
    }
    let partitions = create.partitions.iter().map(|partition| {
        let replicas: Vec<NodeId> = partition.replicas.iter().copied().map(NodeId).collect();
        PartitionRow {
            isr: replicas.clone(),
            replicas,
            leader: Some(NodeId(partition.leader)),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        }
    });
    let topic = Arc::new(Topic {
        id,
        name: create.name.as_str().into(),
        partitions: partitions.collect(),
        configs: create.configs.iter().map(|c| (c.key.clone(), c.value.clone())).collect(),
    });
    image.names.insert(id, Arc::clone(&topic.name));
    image.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
    Ok(Applied::TopicCreated(topic))
}

fn delete_topic(image: &mut MetadataImage, delete: &DeleteTopic) -> Result<Applied, Rejection> {
    let id = topic_id(&delete.topic_id)?;
    let name = image.names.remove(&id).ok_or(Rejection::UnknownTopic)?;
    let topic = image.topics.remove(&name).expect("names and topics name the same topics");
    Ok(Applied::TopicDeleted(topic))
}

fn allocate_producer_ids(
    image: &mut MetadataImage,
    allocate: AllocateProducerIds,
) -> Result<Applied, Rejection> {
    let first = image.next_producer_id;
    let count = allocate.count;
    let next = first.checked_add(count).filter(|_| count > 0).ok_or(Rejection::NotUnderstood)?;
    image.next_producer_id = next;
    Ok(Applied::ProducerIdsAllocated { first, count })
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, Rejection> {
    read_id(bytes).filter(|id| !id.is_zero()).ok_or(Rejection::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ChangedConfig, NewPartition};

    fn create(name: &str, id: u8) -> MetadataCommand {
        Change::CreateTopic(CreateTopic {
            name: name.to_owned(),
            topic_id: vec![id; 16],
            partitions: vec![NewPartition { replicas: vec![1], leader: 1 }; 3],
            configs: vec![ChangedConfig { key: "retention.ms".into(), value: "1000".into() }],
        })
        .into()
    }

    fn delete(id: u8) -> MetadataCommand {
        Change::DeleteTopic(DeleteTopic { topic_id: vec![id; 16] }).into()
    }

    fn run(commands: &[MetadataCommand]) -> (MetadataImage, Vec<Result<Applied, Rejection>>) {
        let mut image = MetadataImage::default();
        let mut results = Vec::new();
        for (index, command) in commands.iter().enumerate() {
            let (next, result) = apply(&image, Lsn(index as u64 + 1), command);
            image = next;
            results.push(result);
        }
        (image, results)
    }

    #[test]
    fn a_topic_exists_from_its_command_on_and_its_name_is_free_again_after_deletion() {
        let (image, results) =
            run(&[create("a", 1), create("a", 2), delete(9), delete(1), create("a", 3)]);
        assert_eq!(results[1], Err(Rejection::TopicExists));
        assert_eq!(results[2], Err(Rejection::UnknownTopic));
        assert_eq!(image.topic("a").unwrap().id, Uuid([3; 16]));
        assert!(image.topic_by_id(Uuid([1; 16])).is_none());
        assert_eq!(image.topic("a").unwrap().partitions[2].leader, Some(NodeId(1)));
        assert_eq!(image.version, Lsn(5));
    }

    #[test]
    fn producer_id_blocks_never_overlap() {
        let allocate = |count| -> MetadataCommand {
            Change::AllocateProducerIds(AllocateProducerIds { node_id: 1, count }).into()
        };
        let (image, results) = run(&[allocate(1_000), allocate(0), allocate(-5), allocate(1_000)]);
        assert_eq!(results[3], Ok(Applied::ProducerIdsAllocated { first: 1_000, count: 1_000 }));
        assert_eq!(results[1], Err(Rejection::NotUnderstood));
        assert_eq!(image.next_producer_id, 2_000);
    }

    #[test]
    fn an_image_survives_its_snapshot_and_goes_on_from_it() {
        let register = Change::RegisterNode(RegisterNode {
            node_id: 0,
            disk_id: vec![8; 16],
            host: "localhost".into(),
            port: 9092,
            rack: String::new(),
        });
        let (image, results) =
            run(&[register.into(), create("a.b", 1), create("c", 2), delete(2), create("a_b", 3)]);
        assert_eq!(results[4], Err(Rejection::NameCollides));
        let restored = MetadataImage::decode(&image.encode()).unwrap();
        assert_eq!(restored, image);
        assert!(restored.colliding_topic("a_b").is_some());
        assert!(restored.colliding_topic("a.b").is_none());
    }

    #[test]
    fn a_command_of_a_newer_release_or_with_malformed_ids_is_rejected_and_harmless() {
        let malformed = Change::DeleteTopic(DeleteTopic { topic_id: vec![1] });
        let (image, results) =
            run(&[MetadataCommand { change: None }, malformed.into(), create("x", 0)]);
        assert!(results.iter().all(|result| *result == Err(Rejection::NotUnderstood)));
        assert_eq!(image.topics().count(), 0);
    }
}
