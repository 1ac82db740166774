//! Physics: every fixed bound of the system, with its unit and its reason. What operators may choose is in
//! the configuration, not here.

/// Largest item by DynamoDB's size rule (`item::size`), bytes: 400 KiB (developer guide, limits).
pub const ITEM_BYTES_MAX: usize = 400 * 1024;

/// Largest encoded item, bytes. The archive of a list of many tiny elements is several times its size by the
/// rule (a NULL counts 2 bytes and takes 9), so this bound is wider than the other.
pub const ITEM_ARCHIVE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Deepest nesting of lists and maps (developer guide, limits).
pub const NESTING_LEVELS_MAX: usize = 32;

/// Deepest chain of pointers that the archive validator follows: root, attributes, 31 containers, a set and
/// its element, and one that the validator keeps.
pub const ARCHIVE_DEPTH_MAX: usize = NESTING_LEVELS_MAX + 4;

/// Largest partition key value, bytes (developer guide, limits).
pub const PARTITION_KEY_BYTES_MAX: usize = 2048;

/// Largest sort key value, bytes (developer guide, limits).
pub const SORT_KEY_BYTES_MAX: usize = 1024;

/// Longest attribute name, bytes (developer guide, limits: 64 KiB; key attributes 255).
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 65_535;

/// Longest table name, bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 255;

/// Significant decimal digits of a number (developer guide, data types).
pub const NUMBER_DIGITS_MAX: usize = 38;

/// Longest expression text, bytes (developer guide, limits).
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Most operators and functions in one expression (developer guide, limits).
pub const EXPRESSION_NODES_MAX: usize = 300;

/// Deepest nesting of an expression's tree: bounds recursion in the parser and the evaluator.
pub const EXPRESSION_DEPTH_MAX: usize = 32;

/// Most operands of IN (developer guide, limits).
pub const IN_OPERANDS_MAX: usize = 100;

/// Most keys in one batch get (developer guide, limits).
pub const BATCH_GET_KEYS_MAX: usize = 100;

/// Most operations in one batch write (developer guide, limits).
pub const BATCH_WRITE_OPERATIONS_MAX: usize = 25;

/// Bytes of items that one page of a query or scan may read (developer guide, limits: 1 MB).
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame body after the handshake, bytes: a batch get may answer 16 MB.
pub const FRAME_BODY_BYTES_MAX: usize = 17 * 1024 * 1024;

/// Largest frame body before the handshake, bytes: a stranger gets no buffer worth having.
pub const FRAME_BODY_BYTES_BEFORE_HELLO_MAX: usize = 1024;

/// Block of the log and of checkpoint files, bytes: the unit of O_DIRECT and of a torn write.
pub const BLOCK_BYTES: usize = 4096;

const _: () = assert!(ITEM_BYTES_MAX < ITEM_ARCHIVE_BYTES_MAX);
const _: () = assert!(ITEM_ARCHIVE_BYTES_MAX + 64 * 1024 < FRAME_BODY_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES.is_power_of_two());
