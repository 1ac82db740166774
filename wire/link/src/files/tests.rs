//! A core's folder on a real file system.

use super::*;

const SEGMENT_BYTES: u64 = 3 * 1024 * 1024 + 4096;

/// A folder on the disk that holds the sources: the one for temporary files may lie in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn create(directory: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), FilesError> {
    let superblock = AlignedBuffer::copy_of(&[5; BLOCK_BYTES]);
    create_core(directory, 2, SEGMENT_BYTES, &superblock, BLOCK_BYTES as u64, progress)
}

#[test]
fn a_new_folder_holds_zeroed_segments_and_its_superblock() {
    let (folder, mut done) = (folder(), Vec::new());
    let core = folder.path().join("node/core-0");
    create(&core, &mut |bytes| done.push(bytes)).unwrap();
    assert_eq!(done.last(), Some(&(2 * SEGMENT_BYTES)));
    assert!(done.is_sorted());
    let files = CoreFiles::open(&core, 2).unwrap();
    let segment = files.get(turn::File::Segment(1)).unwrap();
    assert_eq!(segment.metadata().unwrap().len(), SEGMENT_BYTES);
    let mut block = AlignedBuffer::copy_of(&[1; BLOCK_BYTES]);
    segment.read_exact_at(&mut block, SEGMENT_BYTES - BLOCK_BYTES as u64).unwrap();
    assert!(block.iter().all(|byte| *byte == 0));
    let superblock = files.get(turn::File::Superblock).unwrap();
    superblock.read_exact_at(&mut block, BLOCK_BYTES as u64).unwrap();
    assert!(block.iter().all(|byte| *byte == 5));
    assert_eq!(superblock.metadata().unwrap().len(), 2 * BLOCK_BYTES as u64);
    assert!(files.get(turn::File::Segment(2)).is_none());
    assert_eq!(files.get(turn::File::Tree).unwrap().metadata().unwrap().len(), 0);
}

#[test]
fn every_file_is_opened_without_a_cache_between() {
    let folder = folder();
    let core = folder.path().join("core");
    create(&core, &mut |_| ()).unwrap();
    let files = CoreFiles::open(&core, 2).unwrap();
    let all = [turn::File::Superblock, turn::File::Segment(0), turn::File::Checkpoint(1), turn::File::Tree];
    for file in all {
        let descriptor = files.get(file).unwrap().as_raw_fd();
        let facts = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap();
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & libc::O_DIRECT, 0, "{file:?}: {flags:o}");
    }
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = folder();
    fs::write(folder.path().join("precious"), "data").unwrap();
    assert!(matches!(create(folder.path(), &mut |_| ()), Err(FilesError::NotEmpty { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_was_not_finished_has_no_superblock_and_is_refused() {
    let folder = folder();
    let core = folder.path().join("core");
    create(&core, &mut |_| ()).unwrap();
    fs::remove_file(core.join("superblock")).unwrap();
    assert!(matches!(CoreFiles::open(&core, 2), Err(FilesError::Missing { .. })));
}

#[test]
fn a_folder_is_served_by_one_process_at_a_time() {
    let folder = folder();
    let core = folder.path().join("core");
    create(&core, &mut |_| ()).unwrap();
    let files = CoreFiles::open(&core, 2).unwrap();
    assert!(matches!(CoreFiles::open(&core, 2), Err(FilesError::InUse { .. })));
    drop(files);
    assert!(CoreFiles::open(&core, 2).is_ok());
}

#[test]
fn a_folder_that_is_served_can_be_read_and_not_written() {
    let folder = folder();
    let core = folder.path().join("core");
    create(&core, &mut |_| ()).unwrap();
    let serving = CoreFiles::open(&core, 2).unwrap();
    let pages = AlignedBuffer::copy_of(&[3; 3 * BLOCK_BYTES]);
    serving.get(turn::File::Tree).unwrap().write_all_at(&pages, 0).unwrap();
    let reading = CoreFiles::open_read_only(&core, 2).unwrap();
    let mut buffer = AlignedBuffer::zeroed(4 * BLOCK_BYTES);
    buffer.resize(BLOCK_BYTES);
    reading.read_at(turn::File::Tree, BLOCK_BYTES as u64, &mut buffer).unwrap();
    assert_eq!(buffer[..], pages[..BLOCK_BYTES], "as much as was filled");
    let refused = reading.get(turn::File::Tree).unwrap().write_all_at(&pages, 0).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    assert!(CoreFiles::open_read_only(&core, 3).is_err(), "there are two segments");
}

#[test]
fn a_blocking_read_is_shorter_at_the_end_of_the_file() {
    let folder = folder();
    let core = folder.path().join("core");
    create(&core, &mut |_| ()).unwrap();
    let files = CoreFiles::open(&core, 2).unwrap();
    files.get(turn::File::Tree).unwrap().write_all_at(&AlignedBuffer::zeroed(2 * BLOCK_BYTES), 0).unwrap();
    for (block, expected) in [(0, 2), (1, 1), (2, 0), (9, 0)] {
        let mut buffer = AlignedBuffer::zeroed(4 * BLOCK_BYTES);
        files.read_at(turn::File::Tree, block * BLOCK_BYTES as u64, &mut buffer).unwrap();
        assert_eq!(buffer.len(), expected * BLOCK_BYTES, "from block {block}");
    }
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    let fault = |outcome| matches!(outcome, Err(DiskFault::Os { .. }));
    assert!(fault(files.read_at(turn::File::Segment(7), 0, &mut buffer)), "no such file");
    assert!(fault(files.read_at(turn::File::Tree, 17, &mut buffer)), "no such block");
}

#[test]
fn a_segment_for_which_there_is_no_space_is_reported_as_such() {
    let folder = folder();
    let superblock = AlignedBuffer::copy_of(&[5; BLOCK_BYTES]);
    let outcome = create_core(&folder.path().join("core"), 1, 1 << 60, &superblock, 0, &mut |_| ());
    assert!(matches!(outcome, Err(FilesError::Full { .. })), "{outcome:?}");
}

#[test]
fn a_folder_in_memory_is_refused() {
    let memory = Path::new("/dev/shm");
    if !matches!(check_file_system(memory), Err(FilesError::InMemory { .. })) {
        return; // Not every host has one.
    }
    let folder = tempfile::tempdir_in(memory).unwrap();
    assert!(matches!(create(&folder.path().join("core"), &mut |_| ()), Err(FilesError::InMemory { .. })));
}
