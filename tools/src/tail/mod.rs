//! Why the slow requests were slow: what routers have noted (decision 0018), weighed, explained and shown.
//!
//! * [`sample`]: what routers gave, as a weighted sample of all requests.
//! * [`report`]: from a sample to stages around percentiles, and the cause that dominates.
//! * [`cause`]: what causes there are, and who answers for them.
//! * [`words`]: the report for people. [`html`]: the same with pictures.
//!
//! All of it is pure; the verb asks the routers and prints.

pub mod cause;
pub mod html;
pub mod report;
pub mod sample;
pub mod words;
