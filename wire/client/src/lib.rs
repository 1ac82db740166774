//! Evenkeel's native client.
pub mod json;
