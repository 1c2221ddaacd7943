//! The partitions of this node, by topic and by log.
//!
//! Follows the metadata image: [`Registry::reconcile`] opens what is new and takes out of service
//! what is gone. Readers look things up without a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use chronik_cluster::{MetadataImage, Topic};
use chronik_common::{PartitionIndex, TopicId, TopicPartition};
use chronik_config::TopicConfig;
use chronik_wal::{LogAccess, LogId, OpenedLog, WalError, WalManager};
use tracing::{error, warn};

use crate::acks::{Completion, Token};
use crate::partition::{Partition, StorageFailureHook};
use crate::topic_settings::TopicSettings;

/// A topic on this node.
#[derive(Clone, Debug)]
pub struct TopicHandle {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions by number; `None` where no replica is here.
    pub partitions: Vec<Option<Arc<Partition>>>,
}

impl TopicHandle {
    /// The partition of that number, if a replica is here.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index.0).ok()?)?.as_ref()
    }
}

#[derive(Clone, Default)]
struct Tables {
    by_name: HashMap<Arc<str>, Arc<TopicHandle>>,
    by_id: HashMap<TopicId, Arc<TopicHandle>>,
    by_log: HashMap<LogId, Arc<Partition>>,
}

/// The partitions of this node.
pub struct Registry {
    tables: ArcSwap<Tables>,
    /// Logs found at start that no topic claimed yet.
    unclaimed: Mutex<HashMap<TopicPartition, OpenedLog>>,
    wal: Arc<WalManager>,
    topic_defaults: TopicConfig,
    on_storage_failure: StorageFailureHook,
}

impl Registry {
    /// A registry over the logs found at start.
    #[must_use]
    pub fn new(
        wal: Arc<WalManager>,
        recovered: Vec<OpenedLog>,
        topic_defaults: TopicConfig,
        on_storage_failure: StorageFailureHook,
    ) -> Self {
        let unclaimed = recovered
            .into_iter()
            .filter_map(|log| log.partition.clone().map(|name| (name, log)))
            .collect();
        Self {
            tables: ArcSwap::default(),
            unclaimed: Mutex::new(unclaimed),
            wal,
            topic_defaults,
            on_storage_failure,
        }
    }

    /// The topic of that name, if this node has a part of it.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<TopicHandle>> {
        self.tables.load().by_name.get(name).cloned()
    }

    /// The topic of that id, if this node has a part of it.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicHandle>> {
        self.tables.load().by_id.get(&id).cloned()
    }

    /// The partition whose log has that number.
    #[must_use]
    pub fn by_log(&self, log: LogId) -> Option<Arc<Partition>> {
        self.tables.load().by_log.get(&log).cloned()
    }

    /// All partitions, in no particular order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.tables.load().by_log.values().cloned().collect()
    }

    /// Makes this node hold what the image says: opens or creates logs of new topics, removes
    /// those of deleted ones. Called in order of images, by one thread. Blocks on the disk.
    ///
    /// Waiters of deleted partitions are completed through `completed` and `woken`. A partition
    /// whose log cannot be opened is left out; its topic answers with a storage error.
    pub fn reconcile(
        &self,
        image: &MetadataImage,
        completed: &mut Vec<Completion>,
        woken: &mut Vec<Token>,
    ) {
        let mut tables = Tables::clone(&self.tables.load());
        let gone: Vec<Arc<TopicHandle>> = tables
            .by_id
            .values()
            .filter(|handle| image.topic_by_id(handle.id).is_none())
            .cloned()
            .collect();
        for handle in &gone {
            tables.by_id.remove(&handle.id);
            tables.by_name.remove(&handle.name);
            for partition in handle.partitions.iter().flatten() {
                tables.by_log.remove(&partition.log_id());
            }
        }
        // Nobody may find a deleted topic from here on, before its files go.
        self.tables.store(Arc::new(tables.clone()));
        for partition in gone.iter().flat_map(|handle| handle.partitions.iter().flatten()) {
            partition.delete(completed, woken);
            self.remove_files(Some(partition.log_id()), partition.name());
        }
        for topic in image.topics() {
            if !tables.by_id.contains_key(&topic.id) {
                self.open_topic(topic, &mut tables);
            }
        }
        self.tables.store(Arc::new(tables));
    }

    /// Sets aside logs found at start that belong to no topic of the image: their topic was
    /// deleted just before the stop, or the metadata is not what it should be. Data is never
    /// removed on that suspicion.
    pub fn set_aside_unclaimed(&self) {
        let orphans = std::mem::take(&mut *self.lock_unclaimed());
        for (name, orphan) in orphans {
            let topic_id = orphan.topic_id;
            drop(orphan);
            match self.wal.set_aside(&name) {
                Ok(path) => {
                    let path = path.display();
                    warn!(partition = %name, %topic_id, %path, "set aside a log without a topic");
                }
                Err(failure) => {
                    error!(partition = %name, error = %failure, "cannot set aside a log");
                }
            }
        }
    }

    fn lock_unclaimed(&self) -> std::sync::MutexGuard<'_, HashMap<TopicPartition, OpenedLog>> {
        self.unclaimed.lock().expect("no holder of the table panics")
    }

    fn remove_files(&self, log: Option<LogId>, name: &TopicPartition) {
        if let Err(failure) = self.wal.remove_log(log, name) {
            error!(partition = %name, error = %failure, "cannot remove the files of a deleted log");
        }
    }

    fn open_topic(&self, topic: &Arc<Topic>, tables: &mut Tables) {
        let settings =
            Arc::new(TopicSettings::from_overrides(&self.topic_defaults, &topic.configs));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, row) in topic.partitions.iter().enumerate() {
            let index =
                PartitionIndex(i32::try_from(index).expect("partitions are counted in i32"));
            let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
            let opened = self.open_log(&name, topic.id, &settings).and_then(|log| {
                Partition::open(
                    name.clone(),
                    log,
                    Arc::clone(&settings),
                    row.leader_epoch,
                    Arc::clone(&self.on_storage_failure),
                )
            });
            match opened {
                Ok(partition) => {
                    let owner: std::sync::Weak<dyn LogAccess> =
                        Arc::downgrade(&(Arc::clone(&partition) as Arc<dyn LogAccess>));
                    self.wal.attach(partition.log_id(), owner);
                    let other = tables.by_log.insert(partition.log_id(), Arc::clone(&partition));
                    assert!(
                        other.is_none(),
                        "{name} has the log of {:?}, {:?}",
                        other.as_ref().map(|other| other.name()),
                        partition.log_id()
                    );
                    partitions.push(Some(partition));
                }
                Err(failure) => {
                    error!(partition = %name, error = %failure, "cannot open the log");
                    partitions.push(None);
                }
            }
        }
        let handle =
            Arc::new(TopicHandle { id: topic.id, name: Arc::clone(&topic.name), partitions });
        tables.by_id.insert(topic.id, Arc::clone(&handle));
        let other = tables.by_name.insert(Arc::clone(&topic.name), handle);
        assert!(
            other.is_none(),
            "{} is a topic's name while {:?} has it",
            topic.name,
            other.map(|other| other.id)
        );
    }

    /// The recovered log of a partition, or a new one. Files of an earlier topic of the same name
    /// are never appended to.
    fn open_log(
        &self,
        name: &TopicPartition,
        topic_id: TopicId,
        settings: &TopicSettings,
    ) -> Result<OpenedLog, WalError> {
        if let Some(found) = self.lock_unclaimed().remove(name) {
            if found.topic_id == topic_id {
                let mut found = found;
                found.log.set_config(settings.log_config());
                return Ok(found);
            }
            warn!(partition = %name, "set aside the files of an earlier topic of this name");
            drop(found);
            self.wal.remove_log(None, name)?;
        }
        let log = self.wal.create_log(name, topic_id, settings.log_config())?;
        Ok(OpenedLog { partition: Some(name.clone()), topic_id, log, snapshot: None })
    }
}
