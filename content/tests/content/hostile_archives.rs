//! Archives that a packager downloaded: each way one can lie or escape has its refusal, and nothing is written outside.

use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::Staging;
use mirabelle_content::archive::{ArchiveError, Format, Limits, Selection, deb_control, unpack};
use mirabelle_content::scan_tree;

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("out")).unwrap();
        Self { directory }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn unpack(
        &self,
        bytes: &[u8],
        format: Format,
        selection: &Selection,
    ) -> Result<Vec<String>, ArchiveError> {
        let limits = Limits { bytes: 1 << 20, entries: 100 };
        let archive = self.directory.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let mut staging = Staging::new(&self.out(), limits);
        unpack(&archive, format, selection, &mut staging)?;
        staging.finish().unwrap();
        let files = scan_tree(&self.out(), &mut |_| {}).unwrap();
        Ok(files.into_iter().map(|file| file.path.to_string()).collect())
    }
}

type Entry<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn each_way_to_lie_or_escape_is_refused_by_name() {
    use tar::EntryType as T;
    let many: Vec<(String, T, &str, &[u8])> =
        (0..101).map(|n| (format!("f{n}"), T::Regular, "", &b""[..])).collect();
    let many: Vec<Entry<'_>> = many.iter().map(|(p, k, l, c)| (p.as_str(), *k, *l, *c)).collect();
    let large = vec![0_u8; (1 << 20) + 1];
    let cases: Vec<(&str, Vec<Entry<'_>>)> = vec![
        ("../evil", vec![("../evil", T::Regular, "", b"x")]),
        ("/evil", vec![("/evil", T::Regular, "", b"x")]),
        ("a/../../evil", vec![("a/../../evil", T::Regular, "", b"x")]),
        ("C:\\evil", vec![("C:\\evil", T::Regular, "", b"x")]),
        ("leads out of the release", vec![("l", T::Symlink, "../..", b"")]),
        ("absolute", vec![("l", T::Symlink, "/etc", b"")]),
        ("beneath `l`", vec![("l", T::Symlink, "d", b""), ("l/evil", T::Regular, "", b"x")]),
        ("beneath `f`", vec![("f", T::Regular, "", b"x"), ("f/evil", T::Regular, "", b"x")]),
        ("`f` is there twice", vec![("f", T::Regular, "", b"x"), ("f", T::Regular, "", b"y")]),
        ("`l` is there twice", vec![("l", T::Symlink, "d", b""), ("l", T::Regular, "", b"y")]),
        ("`etc/passwd`", vec![("h", T::Link, "etc/passwd", b"")]),
        ("hard link to `later`", vec![("h", T::Link, "later", b""), ("later", T::Regular, "", b"x")]),
        ("neither a file", vec![("dev", T::Char, "", b"")]),
        ("neither a file", vec![("pipe", T::Fifo, "", b"")]),
        ("100 entries", many),
        ("1048576 bytes", vec![("large", T::Regular, "", &large)]),
        ("the archive is empty", vec![]),
    ];
    for (expected, entries) in cases {
        let bench = Bench::new();
        let error = bench.unpack(&tar_of(&entries), Format::Tar, &Selection::default()).expect_err(expected);
        let text = reason(&error);
        assert!(text.contains(expected), "expected `{expected}` in `{text}`");
        assert!(!bench.directory.path().join("evil").exists() && !Path::new("/evil").exists());
    }
}

#[test]
fn damaged_archives_are_refused_whatever_they_claim_to_be() {
    let good = tar_of(&[("f", tar::EntryType::Regular, "", &[7; 2000])]);
    let mut checksum = good.clone();
    checksum[0] ^= 1;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&good).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&good[..], 1).unwrap();
    let cases: Vec<(&str, Format, Vec<u8>)> = vec![
        ("cut in a header", Format::Tar, good[..300].to_vec()),
        ("cut in a file", Format::Tar, good[..1500].to_vec()),
        ("wrong checksum", Format::Tar, checksum),
        ("gzip cut", Format::Tar, gzip[..gzip.len() - 9].to_vec()),
        ("zstd cut", Format::Tar, zstd[..zstd.len() - 5].to_vec()),
        ("xz garbage", Format::Tar, [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[9; 100]].concat()),
        ("no zip", Format::Zip, good.clone()),
        ("no deb", Format::Deb, good.clone()),
        ("a deb without data", Format::Deb, b"!<arch>\n".to_vec()),
    ];
    for (name, format, bytes) in cases {
        let result = Bench::new().unpack(&bytes, format, &Selection::default());
        assert!(result.is_err(), "{name}");
    }
}

/// An `ar` of these members, as `dpkg-deb` writes it.
fn deb_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        deb.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes());
        deb.extend_from_slice(content);
        deb.extend((size % 2 == 1).then_some(b'\n'));
    }
    deb
}

#[test]
fn a_deb_says_what_it_is_and_gives_its_files() {
    let file = tar::EntryType::Regular;
    let control = tar_of(&[("./md5sums", file, "", b"x"), ("./control", file, "", b"Package: x\n")]);
    let data = zstd::encode_all(&tar_of(&[("./usr/bin/x", file, "", b"x")])[..], 1).unwrap();
    let members = [("debian-binary", &b"2.0"[..]), ("control.tar", &control), ("data.tar.zst", &data)];
    let bench = Bench::new();
    assert_eq!(bench.unpack(&deb_of(&members), Format::Deb, &Selection::default()).unwrap(), ["usr/bin/x"]);
    let control_of = |bytes: &[u8]| {
        let path = bench.directory.path().join("x.deb");
        fs::write(&path, bytes).unwrap();
        deb_control(&path)
    };
    assert_eq!(control_of(&deb_of(&members)).unwrap(), b"Package: x\n");

    let large = tar_of(&[("./control", file, "", &vec![b'x'; (1 << 20) + 1])]);
    for members in [&members[..1], &[("control.tar", &data[..])], &[("control.tar", &large[..])]] {
        assert!(control_of(&deb_of(members)).is_err());
    }
}

#[test]
fn a_zip_bomb_is_stopped_by_the_limit() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bomb", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&vec![0; 8 << 20]).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.len() < 20_000);
    let error = Bench::new().unpack(&bytes, Format::Zip, &Selection::default()).unwrap_err();
    assert!(reason(&error).contains("1048576 bytes"), "{}", reason(&error));
}

#[test]
fn a_zip_that_escapes_is_refused() {
    for path in ["../evil", "/evil", "a\\..\\..\\evil"] {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"x").unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        assert!(Bench::new().unpack(&bytes, Format::Zip, &Selection::default()).is_err(), "{path}");
    }
}

#[test]
fn a_wheel_goes_to_its_places() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for path in
        ["ruff/__init__.py", "ruff-1.data/scripts/ruff", "ruff-1.data/data/share/man/ruff.1", "x/y.data/z"]
    {
        zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(path.as_bytes()).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let bench = Bench::new();
    let files = bench.unpack(&bytes, Format::Wheel, &Selection::default()).unwrap();
    assert_eq!(files, ["bin/ruff", "ruff/__init__.py", "share/man/ruff.1", "x/y.data/z"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(bench.out().join("bin/ruff")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn takes_what_is_selected_and_drops_set_uid() {
    use tar::EntryType as T;
    let bytes = tar_of(&[
        ("./package/", T::Directory, "", b""),
        ("./package/bin/tool", T::Regular, "", b"x"),
        ("./package/bin/also", T::Link, "./package/bin/tool", b""),
        ("./package/doc/manual", T::Regular, "", b"x"),
        ("./package/lib", T::Symlink, "bin", b""),
    ]);
    let bench = Bench::new();
    let selection = Selection {
        strip: 1,
        prefix: Some("opt".parse().unwrap()),
        exclude: vec![mirabelle_manifests::PathPattern::new("doc")],
    };
    let files = bench.unpack(&bytes, Format::Tar, &selection).unwrap();
    assert_eq!(files, ["opt/bin/also", "opt/bin/tool", "opt/lib"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(bench.out().join("opt/bin/tool")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o7777, 0o755);
}
