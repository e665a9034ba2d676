//! Numbers of seven bits a byte, the lowest first; the top bit says that another follows.

use std::io::Read;

use super::DeltaError;

/// Appends a number.
pub(super) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Reads a number.
pub(super) fn read<R: Read + ?Sized>(source: &mut R) -> Result<u64, DeltaError> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = byte(source)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DeltaError::Malformed("a number has no end"))
}

/// Reads a byte.
pub(super) fn byte<R: Read + ?Sized>(source: &mut R) -> Result<u8, DeltaError> {
    let mut byte = [0];
    source.read_exact(&mut byte).map_err(|_| DeltaError::Malformed("it ends too early"))?;
    Ok(byte[0])
}
