//! Reading a core's files, wherever they are: on a disk, or on a simulated one.

use crate::sim::disk::Disk;
use evenkeel_link::CoreFiles;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::turn::{DiskFault, File};

/// The files of a core, to be looked at.
pub trait ReadFiles {
    /// Reads over the buffer's filled part, which becomes shorter at the end of a file that grows. The offset
    /// and the length are whole blocks.
    ///
    /// # Errors
    /// What the device says.
    fn read_at(&self, file: File, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DiskFault>;

    /// How long the tree's file is, blocks.
    ///
    /// # Errors
    /// What the device says.
    fn tree_blocks(&self) -> Result<u64, DiskFault>;
}

impl ReadFiles for CoreFiles {
    fn read_at(&self, file: File, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DiskFault> {
        Self::read_at(self, file, offset, buffer)
    }

    fn tree_blocks(&self) -> Result<u64, DiskFault> {
        Self::tree_blocks(self)
    }
}

/// What would be read now, without time going by.
impl ReadFiles for Disk {
    fn read_at(&self, file: File, offset: u64, buffer: &mut AlignedBuffer) -> Result<(), DiskFault> {
        self.read_into(file, offset, buffer);
        Ok(())
    }

    fn tree_blocks(&self) -> Result<u64, DiskFault> {
        Ok(self.blocks(File::Tree))
    }
}
