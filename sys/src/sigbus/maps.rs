//! Which file is mapped at an address, found out inside a signal handler.
//!
//! The kernel is asked (`/proc/self/maps`) at the moment of the fault. The other way is a table of every run that a
//! resume mapped, prepared before anything can go wrong. It was rejected: 4,096 runs a session would have to be written
//! at every open and exchanged whole at every restore, under readers that no lock can hold back, hence with memory that
//! is never given back; it would cost time at every resume to describe what hardly ever happens; and it would say what
//! was mapped once, where the kernel says what is mapped. The price is that a process that may not open one more file,
//! or sees no /proc, is told the segment and the offset alone; and at 65,530 maps some milliseconds before it dies.
//!
//! It may call: `open(2)`, `read(2)` and `close(2)`, with buffers on the stack. No allocation, lock or panic.

use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
};

/// The longest name that is kept, in bytes: of a longer one, the beginning.
pub(super) const NAME_LEN: usize = 64;

/// An alternate stack has a few KiB left once the kernel has put the registers there.
const BUFFER_LEN: usize = 512;

/// A place in a mapped file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    name: [u8; NAME_LEN],
    len: usize,
    /// Bytes from the file's beginning.
    pub(super) offset: u64,
}

impl Place {
    /// The last part of the file's path, followed by ` (deleted)` where it has none any more.
    pub(super) fn name(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or_default()
    }
}

/// Finds what file is mapped at `at`, and where in it that address lies; `None` where there is none, or nobody says.
///
/// - **Cost**: async-signal-safe; reads all maps below the address, about 0.1 us each.
pub(super) fn file_at(at: usize) -> Option<Place> {
    let maps = open(
        c"/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let mut lines = Lines::new(at);
    let mut buffer = [0; BUFFER_LEN];
    loop {
        let len = match read(&maps, &mut buffer) {
            Ok(0) => return None,
            Ok(len) => len,
            Err(Errno::INTR) => continue,
            Err(_nobody_says) => return None,
        };
        for &byte in buffer.get(..len).unwrap_or_default() {
            if let Some(found) = lines.push(byte) {
                return found;
            }
        }
    }
}

/// Where in a line the next byte belongs: `start-end perms offset dev inode   path`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    End,
    Permissions,
    Offset,
    Device,
    Inode,
    Path,
}

/// Reads maps byte by byte, since a buffer ends anywhere in a line.
struct Lines {
    at: u64,
    field: Field,
    start: u64,
    end: u64,
    /// Only what begins with a slash is a file: `[heap]` and the like are not.
    is_file: bool,
    place: Place,
}

impl Lines {
    fn new(at: usize) -> Self {
        Self {
            at: at as u64,
            field: Field::Start,
            start: 0,
            end: 0,
            is_file: false,
            place: Place {
                name: [0; NAME_LEN],
                len: 0,
                offset: 0,
            },
        }
    }

    /// Takes one more byte; `Some` ends the search: with the place, or without one where the address is in no file.
    fn push(&mut self, byte: u8) -> Option<Option<Place>> {
        if byte == b'\n' {
            if (self.start..self.end).contains(&self.at) {
                let offset = self.place.offset.wrapping_add(self.at - self.start);
                return Some(self.is_file.then_some(Place {
                    offset,
                    ..self.place
                }));
            }
            *self = Self {
                at: self.at,
                place: self.place,
                ..Self::new(0)
            };
            self.place.len = 0;
            self.place.offset = 0;
            return None;
        }
        match self.field {
            Field::Start if byte == b'-' => self.field = Field::End,
            Field::End if byte == b' ' => self.field = Field::Permissions,
            Field::Permissions if byte == b' ' => self.field = Field::Offset,
            Field::Offset if byte == b' ' => self.field = Field::Device,
            Field::Device if byte == b' ' => self.field = Field::Inode,
            Field::Inode if byte == b' ' => self.field = Field::Path,
            Field::Start => more(&mut self.start, byte),
            Field::End => more(&mut self.end, byte),
            Field::Offset => more(&mut self.place.offset, byte),
            Field::Path if byte == b'/' => {
                self.is_file = true;
                self.place.len = 0;
            }
            Field::Path if self.is_file => {
                if let Some(slot) = self.place.name.get_mut(self.place.len) {
                    *slot = byte;
                    self.place.len += 1;
                }
            }
            Field::Permissions | Field::Device | Field::Inode | Field::Path => {}
        }
        None
    }
}

/// Appends a hexadecimal digit to a number.
fn more(number: &mut u64, byte: u8) {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => return,
    };
    *number = (*number << 4) | u64::from(digit);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d4c8a00000-55d4c8a02000 r--p 00000000 fe:01 393231                     /usr/bin/true
5a0000000000-5a0000004000 rw-p 0001f000 fe:01 42                         /home/of a/store/packs/7f00.pack
5a0000004000-5a0000008000 rw-p 00003000 fe:01 43                         /packs/gone.pack (deleted)
5a0000008000-5a0000009000 rw-p 00000000 00:00 0 
7ffc6a1b2000-7ffc6a1d3000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    fn find(maps: &str, at: usize) -> Option<(String, u64)> {
        let mut lines = Lines::new(at);
        let place = maps.bytes().find_map(|byte| lines.push(byte))??;
        let name = String::from_utf8(place.name().to_vec()).unwrap();
        Some((name, place.offset))
    }

    #[test]
    fn a_line_is_found_by_any_of_its_addresses() {
        let said = |at| find(MAPS, at);
        let pack = |offset| Some(("7f00.pack".to_owned(), offset));
        assert_eq!(said(0x5a00_0000_0000), pack(0x1f000));
        assert_eq!(said(0x5a00_0000_3fff), pack(0x22fff));
        assert_eq!(
            said(0x5a00_0000_4001),
            Some(("gone.pack (deleted)".to_owned(), 0x3001))
        );
        assert_eq!(said(0x55d4_c8a0_0000), Some(("true".to_owned(), 0)));
    }

    #[test]
    fn what_is_no_file_has_no_name() {
        // Before all lines, between two, anonymous, named by the kernel, after all.
        for at in [
            0x1000,
            0x5900_0000_0000,
            0x5a00_0000_8000,
            0x7ffc_6a1b_2000,
            usize::MAX,
        ] {
            assert_eq!(find(MAPS, at), None, "{at:#x}");
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let maps = format!("1000-2000 r--p 0 fe:01 1 /a/{}\n", "n".repeat(300));
        assert_eq!(find(&maps, 0x1010), Some(("n".repeat(NAME_LEN), 0x10)));
    }

    #[test]
    fn the_kernel_says_where_this_code_lies() {
        let code = find as fn(&str, usize) -> Option<(String, u64)> as usize;
        let place = file_at(code).unwrap();
        let binary = std::env::current_exe().unwrap();
        let name = binary.file_name().unwrap().as_encoded_bytes();
        assert_eq!(place.name(), &name[..name.len().min(NAME_LEN)]);
        let local = 0_u8;
        assert!(file_at(std::ptr::from_ref(&local).addr()).is_none());
    }
}
