//! What is installed: a mix like that of the packages measured in `content/src/store/at_rest.rs`, where a file has some
//! 100 kB on average and most are far smaller; made from numbers, so that it is the same everywhere.

use mirabelle_tests::App;

/// Bytes of the one large file that never changes: media or a runtime, which do not compress.
const RUNTIME_BYTES: usize = 40 << 20;
/// Files the size of libraries, by turns like code and like media, and their bytes.
const LIBRARIES: u64 = 40;
const LIBRARY_BYTES: usize = 4 << 20;
/// Of the small files, so many of a hundred do not compress (pictures); the others are text.
const PICTURES_OF_100: u64 = 30;
/// Bytes of the small files: most have a few thousand, and some a hundred thousand.
const SMALL_BYTES: [usize; 10] = [400, 1_500, 2_500, 4_000, 6_000, 9_000, 15_000, 30_000, 80_000, 190_000];
/// Every so many files, one changes from a release to the next: 5 %.
const CHANGES_ONE_OF: u64 = 20;

/// Release `sequence` of an application with so many small files. From one release to the next, every twentieth file
/// changes, in a tenth of its bytes.
pub(super) fn app(sequence: u64, small_files: u64) -> App {
    let mut app = App::new("large", sequence).noise("lib/runtime.bin", RUNTIME_BYTES, 1);
    for number in 0..LIBRARIES {
        let compressible = number.is_multiple_of(2);
        app = app
            .file(&format!("lib/module-{number}.so"), bytes(number, sequence, LIBRARY_BYTES, compressible));
    }
    for number in 0..small_files {
        let length = SMALL_BYTES[usize::try_from(mixed(number) % 10).unwrap()];
        let picture = mixed(number ^ 0x5_0000) % 100 < PICTURES_OF_100;
        let ending = if picture { "png" } else { "js" };
        // Some ten to a directory.
        let path = format!("share/part-{}/{}/file-{number}.{ending}", number % 12, number / 12 % 25);
        app = app.file(&path, bytes(LIBRARIES + number, sequence, length, !picture));
    }
    app
}

/// The content of file `number`: the same in every release but for those that change.
fn bytes(number: u64, sequence: u64, length: usize, compressible: bool) -> Vec<u8> {
    let make = |seed: u64, length: usize| if compressible { text(seed, length) } else { noise(seed, length) };
    let mut bytes = make(mixed(number), length);
    if number % CHANGES_ONE_OF == 7 && sequence > 1 {
        let (from, to) = (length / 2, length / 2 + (length / 10).max(1));
        bytes.splice(from..to, make(mixed(number ^ (sequence << 40)), to - from));
    }
    bytes
}

/// splitmix64.
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    (0..).flat_map(|at| mixed(seed ^ mixed(at)).to_le_bytes()).take(length).collect()
}

/// Lines of words, frequent and rare, which compress to about a third.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    for at in 0_u64.. {
        let drawn = mixed(seed ^ mixed(at));
        // The product of two drawn numbers prefers small ones.
        let word = (drawn % 64) * ((drawn >> 8) % 64);
        let letters = mixed(word);
        text.extend(
            (0..3 + letters % 7)
                .map(|place| b'a' + u8::try_from((letters >> (8 * (place % 7))) % 26).unwrap()),
        );
        text.push(if drawn >> 60 == 0 { b'\n' } else { b' ' });
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text
}
