//! Device paths (UEFI 2.10, chapter 10): from the partition that a program was loaded from to the
//! disk that holds it.

use contract::gpt::Guid;

/// The node that ends a device path.
pub const END: [u8; 4] = [0x7f, 0xff, 4, 0];

const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const END_TYPE: u8 = 0x7f;

/// A partition by its device path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition<'a> {
    /// Path of the disk, without an end node.
    pub disk: &'a [u8],
    /// Identity of the partition, when it is one of a GPT.
    pub guid: Option<Guid>,
}

/// Length of the node at the start of `path`; `None` when it is no node or ends outside `path`.
pub fn node_len(path: &[u8]) -> Option<usize> {
    let len = usize::from(u16::from_le_bytes([*path.get(2)?, *path.get(3)?]));
    (len >= 4 && len <= path.len()).then_some(len)
}

/// Whether an end node is at the start of `path`.
pub fn is_end(path: &[u8]) -> bool {
    path.first() == Some(&END_TYPE)
}

/// Reads the path of a partition: its last node before the end is a hard drive node. `None` when
/// it is something else (a whole disk, an optical disc, the network) or broken.
pub fn partition(path: &[u8]) -> Option<Partition<'_>> {
    let (mut at, mut last) = (0, None);
    while !is_end(path.get(at..)?) {
        last = Some(at);
        at += node_len(&path[at..])?;
    }
    let last = last?;
    let node: &[u8; 42] = path[last..at].try_into().ok()?;
    if node[0..2] != [MEDIA, HARD_DRIVE] {
        return None;
    }
    let mut guid = [0; 16];
    guid.copy_from_slice(&node[24..40]);
    let is_gpt = node[40..42] == [2, 2];
    Some(Partition { disk: &path[..last], guid: is_gpt.then(|| Guid::from_bytes(guid)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCI: [u8; 6] = [1, 1, 6, 0, 3, 0];

    fn hard_drive(kind: [u8; 2]) -> Vec<u8> {
        let mut node = vec![4, 1, 42, 0];
        node.extend([0; 20]);
        node.extend([7; 16]);
        node.extend(kind);
        node
    }

    /// (name, path, identity of the partition if it is one)
    type Case = (&'static str, Vec<u8>, Option<Option<Guid>>);

    #[test]
    fn table() {
        let gpt = Some(Guid::from_bytes([7; 16]));
        let cases: [Case; 7] = [
            ("GPT partition", [&PCI[..], &hard_drive([2, 2]), &END].concat(), Some(gpt)),
            ("MBR partition", [&PCI[..], &hard_drive([1, 1]), &END].concat(), Some(None)),
            ("whole disk", [&PCI[..], &END].concat(), None),
            ("only the end", END.to_vec(), None),
            ("no end", [&PCI[..], &hard_drive([2, 2])].concat(), None),
            ("node too short", vec![1, 1, 3, 0, 0x7f, 0xff, 4, 0], None),
            ("node longer than the path", vec![1, 1, 99, 0, 0x7f, 0xff, 4, 0], None),
        ];
        for (name, path, expected) in cases {
            let found = partition(&path);
            assert_eq!(found.map(|p| p.guid), expected, "{name}");
            assert!(found.is_none_or(|p| p.disk == PCI), "{name}");
        }
    }
}
