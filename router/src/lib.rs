//! The router and MemDS: metadata with constant work.
//!
//! * [`route`]: a request's way through a router, top to bottom. [`edge`]: the one full validation of what
//!   clients send.
//! * [`cache`]: routes that a router remembers. [`lookups`]: questions to MemDS, hit or miss.
//! * [`flight`]: requests under way. [`batch`]: requests of many keys.
//! * [`journey`]: where a request spends its time. [`recorder`]: the slowest of them, remembered.
//! * [`memds`]: the metadata server.
#![forbid(unsafe_code)]

pub mod batch;
pub mod cache;
pub mod edge;
pub mod flight;
pub mod journey;
pub mod limits;
pub mod lookups;
pub mod memds;
pub mod recorder;
pub mod route;
