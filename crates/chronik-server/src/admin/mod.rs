//! The HTTP side: metrics and health.

pub(crate) mod http;
