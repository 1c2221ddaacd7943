//! Sockets: accepting, limits, and one task per connection.

pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod port_holder;
