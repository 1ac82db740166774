//! Physics of a storage core: fixed bounds, each with its unit and its reason.

use evenkeel_wire::limits::ITEM_ARCHIVE_BYTES_MAX;
use std::time::Duration;

/// How often a leader renews its leases. Several fit into a term, so that one lost frame costs nothing.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between heartbeats, however many groups have a new leader that wants its lease.
pub const HURRY_AFTER: Duration = Duration::from_millis(1);

/// How long a granted lease lasts (section 6.2 of the ATC 2022 paper: a couple of seconds).
pub const LEASE_TERM: Duration = Duration::from_millis(1600);

/// A peer core that was not heard for this long no longer renews leases of groups at rest in silence: each of
/// them is looked at again. Late enough for some lost heartbeats, early enough that every such lease still
/// holds, and that followers come to suspect their leader when they are due to.
pub const PEER_SILENT_AFTER: Duration = Duration::from_millis(700);

/// Most groups that one heartbeat tells of, some 3 MB; the others' turn is the next one.
pub const HEARTBEAT_CHANGES_MAX: usize = 65_536;

/// Most groups on a peer's roll: far more than one core can serve.
pub const ROLL_GROUPS_MAX: usize = 4 * HEARTBEAT_CHANGES_MAX;

/// How much the clocks of two hosts may drift apart within one term: 2%, far above what a working
/// CLOCK_BOOTTIME does. A leader gives its lease up this much early, and a new one waits this much longer.
pub const LEASE_DRIFT: Duration = Duration::from_millis(32);

/// Silence of a leader after which a follower begins to ask its peers about it.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1000);

/// Followers of one group begin to ask at different times: this much apart by their place in the group…
pub const SUSPECT_STAGGER: Duration = Duration::from_millis(150);

/// …and at random within this much.
pub const SUSPECT_JITTER: Duration = Duration::from_millis(120);

/// The same when a follower's link to its leader breaks, as they do when a process is killed. The others'
/// links have broken, too, by the time they are asked; the new leader's wait for the lease begins that early.
pub const BROKEN_STAGGER: Duration = Duration::from_millis(40);

/// …and at random within this much.
pub const BROKEN_JITTER: Duration = Duration::from_millis(30);

/// How long a follower waits for its peers' opinion before it asks again.
pub const SUSPECT_ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// How long a candidate waits for promises before it tries a higher ballot, plus up to as much at random.
pub const CANDIDATE_PATIENCE: Duration = Duration::from_millis(400);

/// How often a candidate repeats its question to members that have not answered.
pub const PREPARE_AGAIN_AFTER: Duration = Duration::from_millis(60);

/// After this much time without progress, what was sent to a follower is sent again.
pub const RESEND_AFTER: Duration = Duration::from_millis(250);

/// How often a leader with nothing else under way sends entries to the follower that a quorum does without.
/// The third copy is behind by so much, and costs a message and a log write for each of these.
pub const SPARE_EVERY: Duration = Duration::from_millis(1);

/// How long a leader keeps its commit position to itself when no entry carries it to the followers.
pub const COMMIT_NOTICE_AFTER: Duration = Duration::from_millis(4);

/// How long requests wait for the successor of a leader that hands over, which takes a few log writes: many
/// times that, and less than a client waits for.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_millis(200);

/// Groups that a core hands over at the same time. Their requests wait meanwhile, and their first entries
/// share the log writes of their new leaders.
pub const HAND_OVERS_MAX: usize = 64;

/// A core that drains stays this long after its last hand-over, and tells routers whom to ask instead.
pub const DRAIN_LINGER: Duration = Duration::from_millis(100);

/// How long a core that drains waits for the next leadership that it can hand over, or for its log to come to
/// rest, before it ends all the same…
pub const DRAIN_PATIENCE: Duration = LEASE_TERM;

/// …and how long in all, though it still hands over.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(12);

/// A log whose writes take this long…
pub const LOG_SLOW: Duration = Duration::from_millis(300);

/// …and have done so for this long makes its core hand its leaderships over, if followers are faster…
pub const LOG_SLOW_FOR: Duration = Duration::from_millis(500);

/// …for which it takes this much time…
pub const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// …and not again before this much has passed: were all disks slow, leaderships would go round.
pub const LEAVE_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// Bytes of entries in one Accept.
pub const ACCEPT_BYTES_MAX: usize = 512 * 1024;

/// Bytes of entries under way to one follower of one group.
pub const FOLLOWER_WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Entries under way to one follower of one group.
pub const FOLLOWER_WINDOW_ENTRIES: usize = 4096;

/// Applied entries that a group keeps in memory for a follower that is behind, bytes. A follower that needs
/// older ones is sent a snapshot.
pub const GROUP_LOG_BYTES_KEPT: usize = 16 * 1024 * 1024;

/// Writes for which the tree is read together, before they are applied: what they touch fits into a cache.
pub const ENTRIES_SEEN_AHEAD: usize = 64;

/// Log replicas of a core keep at most this part of its log, in memory and through checkpoints. When they
/// must keep more, they take no entries, and items that come to one must come again.
pub const LOG_REPLICAS_PART: u64 = 4;

/// How long a member may be silent before another one takes its place: longer than an election takes, so that
/// it is not the member's fault that nobody was heard.
pub const REPLACE_AFTER: Duration = Duration::from_millis(2000);

/// How often leaders look at the members of groups that are not at rest.
pub const HEAL_TICK: Duration = Duration::from_millis(60);

/// How long a node that is asked to take the log may be silent before another one is asked.
pub const COURT_PATIENCE: Duration = Duration::from_millis(700);

/// How often a former member is asked whether it is back, while a log replica stands in for it…
pub const COURT_FORMER_EVERY: Duration = Duration::from_secs(3);

/// …and how long one stands in before the partition's items are copied to it: a node that was only started
/// anew is back by then.
pub const COPY_ITEMS_AFTER: Duration = Duration::from_secs(15);

/// How long a replica that is sent a snapshot looks for the log at other members…
pub const SEEK_FOR: Duration = Duration::from_secs(30);

/// …how long it waits for one of them before it asks the next…
pub const SEEK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// …and how much of it is worth more than the snapshot, bytes.
pub const SEEK_BYTES_MAX: usize = 16 << 20;

/// How long a replica that must not vote hears of no leader before it stands: nobody else can lead then.
pub const FORGETFUL_STANDS_AFTER: Duration = Duration::from_secs(5);

/// How long a replica that has not heard of a leader waits before it asks whether anybody needs it.
pub const STRAY_AFTER: Duration = Duration::from_secs(5);

/// Most memberships in one report to the catalogue, some 500 KB.
pub const CHANGES_REPORTED_MAX: usize = 1024;

/// Entries that a learner may lack when it becomes a member: fewer than may be under way to it.
pub const LEARNER_LAG_MAX: u64 = 512;

/// Writes of one partition that may wait for their quorum.
pub const PENDING_WRITES_MAX: usize = 4096;

/// Bytes of them.
pub const PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Repetitions of pending writes of one partition that may wait for those writes.
pub const PARKED_ANSWERS_MAX: usize = 4096;

/// Log writes under way at the device. Two to four merge their flushes (docs/decisions/0004-log.md).
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 4;

/// Capacity of a pooled log buffer, bytes. A record that is larger gets a buffer of its own.
pub const LOG_BUFFER_BYTES: usize = 256 * 1024;

/// Pooled log buffers of a core: those in flight, and two that fill.
pub const LOG_BUFFERS: usize = LOG_WRITES_IN_FLIGHT_MAX + 2;

/// Within this time of the last acknowledgement, a log write names it as durable.
pub const WATERMARK_WITHIN: Duration = Duration::from_millis(8);

/// Smallest log segment, bytes: it must hold the largest record.
pub const SEGMENT_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Free segments that client writes leave alone: promises and the state records of checkpoints must
/// always find room.
pub const SEGMENTS_RESERVED: usize = 2;

/// Fewest segments. A checkpoint begins when half of them are used, which must be before only the reserve is
/// left.
pub const SEGMENTS_MIN: u32 = 6;

/// Bytes of records in one chunk of a checkpoint, unless one record alone is larger.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of records in one chunk of a snapshot, unless one record alone is larger: requests wait on both
/// sides while one is made or taken, and the log while its pages are read.
pub const SNAPSHOT_CHUNK_BYTES: usize = 64 * 1024;

/// Chunks of a snapshot under way to one receiver.
pub const SNAPSHOT_WINDOW_CHUNKS: u32 = 16;

/// Bytes of snapshots that a core sends in a second: some six minutes for 4 GiB, so that requests beside it
/// hardly notice. Of 32 MiB a second they do where replicas share two CPUs: p99 is 1.6x to 1.8x of before.
pub const SNAPSHOT_BYTES_PER_SECOND: i64 = 12 * 1024 * 1024;

/// Bytes of them that it may send at once, after a pause.
pub const SNAPSHOT_BURST_BYTES: i64 = SNAPSHOT_CHUNK_BYTES as i64;

/// A receiver gathers so many bytes of a snapshot before it merges them into pages…
pub const SNAPSHOT_MERGE_BYTES: usize = 1024 * 1024;

/// …or what this part of the page cache holds, if that is less.
pub const SNAPSHOT_CACHE_PART: usize = 32;

/// Leaves of a snapshot that its receiver makes in one turn…
pub const SNAPSHOT_LEAVES_PER_TURN: usize = 2;

/// …and how long it rests before the next ones. Requests on its core, and its log on the disk, wait for a
/// few leaves and not for all; together more than twice as fast as a snapshot is sent.
pub const SNAPSHOT_REST: Duration = Duration::from_micros(500);

/// Writes of a snapshot's pages under way.
pub const SNAPSHOT_WRITES_IN_FLIGHT_MAX: usize = 1;

/// How long a snapshot's sender waits for an acknowledgement before it sends again, and its receiver for a
/// chunk before it forgets the transfer.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_millis(1000);

/// Bytes of pages in one write of the tree's file, where they lie side by side.
pub const TREE_WRITE_BYTES: usize = 256 * 1024;

/// Writes of the tree's file under way. Few: they share the device with the log.
pub const TREE_WRITES_IN_FLIGHT_MAX: usize = 8;

/// Reads of pages under way, of requests and background work together.
pub const PAGE_READS_IN_FLIGHT_MAX: usize = 128;

/// Reads of pages under way for one piece of background work.
pub const FEED_READS_IN_FLIGHT_MAX: usize = 32;

/// Operations of a core that may wait for pages.
pub const PARKED_OPERATIONS_MAX: usize = 4096;

/// Leaves that a checkpoint merges in one turn.
pub const CHECKPOINT_LEAVES_PER_TURN: usize = 2;

/// How often some of what checkpoints have merged is freed. Not in every turn: a busy core has thousands in a
/// second, and did nothing else but that for a tenth of one (docs/decisions/0019-turns.md).
pub const FREE_EVERY: Duration = Duration::from_micros(500);

/// In so many steps all of it is freed, that is within about a second, however much there is…
pub const FREE_STEPS: usize = 2048;

/// …and in fewer if there is little: a step frees at least so many changes.
pub const CHANGES_FREED_MIN: usize = 32;

/// How much further a checkpoint must go than the log's filling up asks for, as a factor; else writes are
/// held. What is left of the log then serves while the checkpoint is flushed.
pub const CHECKPOINT_LAG_MAX: f64 = 1.2;

/// Changes that a checkpoint merges in a second even when the log hardly grows.
pub const CHECKPOINT_CHANGES_PER_SECOND: u64 = 4000;

/// Milestones of a partition's open writes that are remembered to tell where their time went: more than the
/// turns that one takes.
pub const MILESTONES_MAX: usize = 256;

/// Requests that waited for a checkpoint or a new leader and are taken up again in one turn.
pub const HELD_PER_TURN: usize = 64;

/// How much further a checkpoint goes than the log's filling up asks for, as a factor.
pub const CHECKPOINT_ADVANCE: f64 = 1.5;

/// How long a member may take to answer for a range of a damaged page, before the next one is asked.
pub const REPAIR_PATIENCE: Duration = Duration::from_millis(1000);

/// How often a core may give up the leadership of a group because a page of it cannot be repaired.
pub const STEP_ASIDE_EVERY: Duration = Duration::from_secs(20);

/// Leaves of a repair that are built in one turn.
pub const REPAIR_LEAVES_PER_TURN: usize = 8;

/// Pages that a merge reads ahead.
pub const MERGE_READ_AHEAD: usize = 64;

/// Pages that a check asks for at a time. Neighbours are read at once where that is possible.
pub const CHECK_READ_AHEAD: usize = 64;

/// Findings that a check keeps until somebody takes them; the others are counted.
pub const CHECK_FINDINGS_MAX: usize = 1000;

/// How long after a start the trees are checked for the first time.
pub const SCRUB_AFTER_START: Duration = Duration::from_secs(20);

/// How long after the end of one check of all trees the next one begins.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// How often the check goes on.
pub const SCRUB_TICK: Duration = Duration::from_millis(20);

/// Pages that it looks at each time: 400 in a second, some 11 GiB in an hour, and 3 MiB/s for the device.
pub const SCRUB_PAGES_PER_TICK: usize = 8;

/// Bytes read at once during recovery.
pub const RECOVERY_READ_BYTES: usize = 1024 * 1024;

/// Of a log segment that begins with zeros, recovery looks at this part for writes behind a first one that
/// was acknowledged and is not there. No first write is as long, but that of an item that alone takes
/// megabytes.
pub const BLANK_READ_PART: u64 = 8;

/// Pages that one eviction may pass over because they were used, before it takes the next one whatever it is:
/// a cache of which everything is hot would otherwise be gone through three times on one request's way.
pub const CACHE_CHANCES_MAX: u32 = 256;

/// A token older than this is refused: what it did may have been forgotten.
pub const TOKEN_RETENTION_MS: u64 = 60_000;

/// A token may be this much ahead of the leader's clock.
pub const TOKEN_AHEAD_MS_MAX: u64 = 10_000;

/// Longest text of a refusal that is kept, bytes.
pub const REFUSAL_BYTES_MAX: usize = 512;

/// Outcomes that one partition remembers.
pub const OUTCOMES_MAX: usize = 65_536;

/// Bytes of items and keys that a partition remembers with them.
pub const OUTCOME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Clients that one partition remembers.
pub const SESSIONS_MAX: usize = 65_536;

/// How often a leader core tells MemDS a few of the routes again, and the catalogue tells it its version.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(1000);

/// How many routes that are, some 2 KB.
pub const PUBLISH_AGAIN_ROUTES: usize = 16;

/// Most routes in one frame. Each is shorter than 4.5 KB, and mostly much shorter.
pub const PUBLISH_ROUTES_MAX: usize = 2048;

/// How often the catalogue repeats orders that were not answered.
pub const CATALOG_RETRY: Duration = Duration::from_millis(500);

/// How often the catalogue speaks to every core, even if it has no order for it: a core that lost data asks
/// back.
pub const CATALOG_GREETING: Duration = Duration::from_millis(3000);

/// Most partitions that a table may be created with.
pub const TABLE_PARTITIONS_MAX: u32 = 256;

/// Partitions that a table may have had: they are numbered in 16 bits.
pub const PARTITION_NUMBERS_MAX: u32 = 1 << 16;

/// A table's record grows with its partitions, and must stay an item.
pub const CATALOG_RECORD_BYTES_MAX: usize = 256 * 1024;

/// Read units that one partition serves (section 3 of the ATC 2022 paper).
pub const PARTITION_READ_UNITS: u64 = 3000;

/// Write units that one partition serves.
pub const PARTITION_WRITE_UNITS: u64 = 1000;

/// Partitions of a new on-demand table: its first level is 4000 write and 12000 read units (developer guide).
pub const ON_DEMAND_PARTITIONS: u32 = 4;

const _: () = assert!(LEASE_TERM.as_nanos() > 4 * HEARTBEAT_INTERVAL.as_nanos());
const _: () = assert!(PEER_SILENT_AFTER.as_nanos() > 3 * HEARTBEAT_INTERVAL.as_nanos());
const _: () = assert!(PEER_SILENT_AFTER.as_nanos() < SUSPECT_AFTER.as_nanos());
const _: () = assert!(PEER_SILENT_AFTER.as_nanos() * 2 < LEASE_TERM.as_nanos() - LEASE_DRIFT.as_nanos());
const _: () = assert!(LEASE_DRIFT.as_nanos() * 50 >= LEASE_TERM.as_nanos());
const _: () = assert!(SEGMENT_BYTES_MIN as usize > ITEM_ARCHIVE_BYTES_MAX + LOG_BUFFER_BYTES);
const _: () = assert!(SEGMENTS_MIN as usize / 2 > SEGMENTS_RESERVED);
const _: () = assert!(FOLLOWER_WINDOW_BYTES > ITEM_ARCHIVE_BYTES_MAX);
const _: () = assert!(SNAPSHOT_BYTES_PER_SECOND > SNAPSHOT_BURST_BYTES);
const _: () = assert!(CHECKPOINT_ADVANCE > CHECKPOINT_LAG_MAX && CHECKPOINT_LAG_MAX > 1.0);
const _: () = assert!(ON_DEMAND_PARTITIONS as u64 * PARTITION_WRITE_UNITS == 4000);
const _: () = assert!(ON_DEMAND_PARTITIONS as u64 * PARTITION_READ_UNITS == 12000);
