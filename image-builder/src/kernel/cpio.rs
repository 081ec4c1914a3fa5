//! cpio archives in the `newc` format that the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

const DIRECTORY: u32 = 0o040000;
const REGULAR: u32 = 0o100000;
const CHAR_DEVICE: u32 = 0o020000;

/// An archive that is being written. Everything belongs to root, and every time is `mtime`.
pub struct Archive {
    bytes: Vec<u8>,
    mtime: u32,
    entries: u32,
}

impl Archive {
    /// An empty archive.
    pub fn new(mtime: u32) -> Archive {
        Archive { bytes: Vec::new(), mtime, entries: 0 }
    }

    /// Adds a directory. Its parents have to be there already.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.header(path, DIRECTORY | mode, 2, 0, (0, 0));
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, REGULAR | mode, 1, content.len(), (0, 0));
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.header(path, CHAR_DEVICE | mode, 1, 0, (major, minor));
    }

    /// The bytes of the archive.
    pub fn finish(mut self) -> Vec<u8> {
        (self.mtime, self.entries) = (0, 0);
        self.header("TRAILER!!!", 0, 1, 0, (0, 0));
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, links: u32, len: usize, device: (u32, u32)) {
        let inode = self.entries;
        self.entries += 1;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device, rdevice, name length, checksum
        let (len, name_len) = (len as u32, path.len() as u32 + 1);
        let (major, minor) = device;
        let fields = [inode, mode, 0, 0, links, self.mtime, len, 0, 0, major, minor, name_len, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lies_where_the_format_says() {
        let mut archive = Archive::new(0x1234);
        archive.directory("d", 0o755);
        archive.file("d/x", 0o644, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let second = &bytes[112..];
        let expected = "07070100000001000081A400000000000000000000000100001234\
                        0000000500000000000000000000000000000000000000040000\
                        0000";
        assert_eq!(&second[..110], expected.as_bytes());
        assert_eq!(&second[110..][..11], b"d/x\0\0\0hello");
    }
}
