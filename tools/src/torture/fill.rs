//! Data that a scenario needs to be there: a table of its own, filled by threads.

use super::TortureError;
use super::load::client;
use evenkeel_client::{Error, Item, KeyType};
use evenkeel_wire::prng::Prng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The table.
pub const TABLE: &str = "filled";
/// Bytes of an item, about.
const ITEM_BYTES: usize = 16 * 1024;
/// Threads that put them.
const THREADS: usize = 32;

/// Puts `mib` of items, which do not compress, into a table of one partition.
///
/// # Errors
/// When the cluster, which must be well, does not take them.
pub fn fill(endpoints: &[String], mib: u64, progress: &mut dyn FnMut(&str)) -> Result<(), TortureError> {
    let patience = Duration::from_secs(60);
    let first = client(endpoints, 0, patience)?;
    first.create_table(TABLE).partition_key("pk", KeyType::N).partitions(1).wait_until_active().send()?;
    let (count, next) = ((mib << 20) / ITEM_BYTES as u64, AtomicU64::new(0));
    let put_all = |number: usize| -> Result<(), Error> {
        let client = client(endpoints, number, patience)?;
        let (mut prng, mut bytes) = (Prng::new(number as u64), vec![0; ITEM_BYTES]);
        loop {
            let key = next.fetch_add(1, Ordering::Relaxed);
            if key >= count {
                return Ok(());
            }
            prng.fill(&mut bytes);
            client.put(TABLE, Item::new().with("pk", key).with("bytes", bytes.clone())).send()?;
        }
    };
    progress(&format!("putting {mib} MiB"));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || put_all(number))).collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().expect("a thread that puts items does not panic"));
        ended.collect::<Result<Vec<()>, Error>>()
    })?;
    Ok(())
}
