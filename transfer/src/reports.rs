//! Reports on their way from node to origin: many lines, compressed together.

use std::io::{self, Read, Write};

/// What a packed batch is, for `Content-Type`.
pub const PACKED: &str = "application/zstd";
/// What a machine's own lines are.
pub const LINES: &str = "application/x-ndjson";
/// The most of a packed batch.
pub const MAX_PACKED_BYTES: usize = 4 << 20;
/// The most of its lines.
pub const MAX_LINES_BYTES: usize = 16 << 20;
/// Reports are much alike, and few: more effort gains little.
const LEVEL: i32 = 6;

/// Packs lines.
///
/// # Errors
/// Those of the encoder.
pub fn pack<'a>(lines: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    for line in lines {
        encoder.write_all(line.as_bytes())?;
        encoder.write_all(b"\n")?;
    }
    encoder.finish()
}

/// The lines of a packed batch.
///
/// # Errors
/// When it is no batch, or would be larger than any.
pub fn unpack(packed: &[u8]) -> io::Result<String> {
    let mut text = String::new();
    let limit = MAX_LINES_BYTES as u64 + 1;
    zstd::Decoder::new(packed)?.take(limit).read_to_string(&mut text)?;
    if text.len() > MAX_LINES_BYTES {
        return Err(io::Error::other("the batch holds more than 16 MiB of reports"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in_and_a_bomb_does_not() {
        let packed = pack(["one", "two"]).unwrap();
        assert_eq!(unpack(&packed).unwrap().lines().collect::<Vec<_>>(), ["one", "two"]);
        assert!(unpack(b"nothing of the kind").is_err());
        let long = "x".repeat(MAX_LINES_BYTES);
        let bomb = pack([long.as_str()]).unwrap();
        assert!(bomb.len() < MAX_PACKED_BYTES);
        assert!(unpack(&bomb).is_err());
    }
}
