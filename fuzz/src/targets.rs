//! One file per target.

pub(crate) mod batch_validation;
pub(crate) mod config_file;
pub(crate) mod decompression;
pub(crate) mod frame_splitter;
pub(crate) mod legacy_message_set;
pub(crate) mod planted_bug;
pub(crate) mod record_iterator;
pub(crate) mod request;
pub(crate) mod wal_recovery;
