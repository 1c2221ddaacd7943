//! librdkafka in a build without the feature `rdkafka`: clients that cannot be.
//!
//! The plan refuses `--client rdkafka`, so nobody asks for one. See `librdkafka.rs`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::batch_template::MessageShape;
use crate::clock::RunClock;
use crate::consumer_engine::ReadPosition;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::produce_load::Target;
use crate::producer_worker::{WorkerContext, WorkerEnd};
use crate::recorder::{Recorder, RecorderEnd};

/// True if this build can use librdkafka.
pub const IS_BUILT_IN: bool = false;

/// The version of librdkafka.
#[must_use]
pub fn version() -> Option<String> {
    None
}

/// A producer.
#[derive(Debug)]
pub enum Producer {}

impl Producer {
    /// # Errors
    /// Always.
    pub fn new(_: &Plan, _: &Target, _: MessageShape, _: (u32, u64)) -> Result<Self, Failure> {
        Err(absent())
    }

    /// Nobody has one.
    pub fn connect(self, _: WorkerContext, _: (usize, Recorder)) -> Result<Self, Failure> {
        match self {}
    }

    /// Nobody has one.
    pub fn run(self) -> WorkerEnd {
        match self {}
    }
}

/// A consumer.
#[derive(Debug)]
pub enum Consumer {}

impl Consumer {
    /// # Errors
    /// Always.
    pub fn new(_: &Plan, _: &str, _: Vec<ReadPosition>) -> Result<Self, Failure> {
        Err(absent())
    }

    /// Nobody has one.
    pub fn connect(
        self,
        _: RunClock,
        _: (usize, Recorder),
        _: Arc<AtomicBool>,
        _: u64,
    ) -> Result<Self, Failure> {
        match self {}
    }

    /// Nobody has one.
    pub fn run(self) -> Result<RecorderEnd, Failure> {
        match self {}
    }
}

fn absent() -> Failure {
    Failure::Usage("this build has no librdkafka".to_owned())
}
