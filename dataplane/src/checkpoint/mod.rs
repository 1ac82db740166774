//! Checkpoints: a core's committed state in a file, so that the log before it can be recycled.
//!
//! A checkpoint holds a consistent snapshot of every group of the core. It is written in the background into
//! one of two files, used in turn; when it is durable, one block of the superblock names it together with the
//! place where the log now begins. At that place stands, for every group, its state record: promises and
//! membership are copied forward before anything is recycled. What was accepted and not yet applied when the
//! snapshot was taken is in the file.
//!
//! * [`image`]: the records that a partition's state is made of, in a checkpoint and in a snapshot to a peer
//!   alike. [`sink`]: what is built of them again.
//! * [`cells`]: those of a key range, for a member whose pages are damaged.
//! * [`chunk`]: how they stand in the file. [`superblock`]: what names a checkpoint.
//! * [`writer`]: writes one, a chunk at a time. [`reader`]: reads one. [`recovery`]: reads superblock,
//!   checkpoint and log back.

pub mod cells;
pub mod chunk;
pub mod image;
pub mod reader;
pub mod recovery;
pub mod sink;
pub mod superblock;
pub mod writer;
