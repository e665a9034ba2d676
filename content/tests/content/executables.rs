//! Small executables: as much of an ELF and of a PE file as linkers and loaders agree on, around any code.

/// Functions of these lengths, each of which calls those after it; x86-64.
pub(crate) fn program(lengths: &[usize]) -> Vec<u8> {
    let starts: Vec<usize> = lengths
        .iter()
        .scan(0, |end, length| {
            let start = *end;
            *end += (*length).max(6);
            Some(start)
        })
        .collect();
    let mut code = Vec::new();
    for (function, length) in lengths.iter().enumerate() {
        let end = starts[function] + (*length).max(6);
        let mut call = function;
        while code.len() + 6 <= end {
            call = (call * 7 + 3) % lengths.len();
            code.push(0xe8);
            let after = code.len() + 4;
            let distance = i32::try_from(starts[call]).unwrap() - i32::try_from(after).unwrap();
            code.extend(distance.to_le_bytes());
        }
        code.resize(end - 1, 0x90);
        code.push(0xc3);
    }
    code
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An ELF file with a section of code and one of pointers into it.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    const START: usize = 4096;
    let address = 0x10_1000_u64;
    let mut file = vec![0; START];
    file.extend_from_slice(code);
    file.resize(file.len().next_multiple_of(16), 0x90);
    let pointers = file.len();
    for function in (0..code.len() as u64).step_by(97) {
        file.extend((address + function).to_le_bytes());
    }
    let names = file.len();
    file.extend(b"\0.text\0.data\0.names\0");
    file.resize(file.len().next_multiple_of(8), 0);
    let sections = file.len();
    let end = names as u64;
    let number = |value: usize| (value as u64).to_le_bytes();
    let mut section = |name: u32, kind: u32, flags: u64, address: u64, from: usize, to: usize| {
        file.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([flags.to_le_bytes(), address.to_le_bytes(), number(from), number(to - from)].concat());
        file.extend([0; 24]);
    };
    section(0, 0, 0, 0, 0, 0);
    section(1, 1, 6, address, START, pointers);
    section(7, 1, 3, address + (pointers - START) as u64, pointers, names);
    section(13, 3, 0, 0, names, names + 20);
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &[3, 0, 62, 0, 1]);
    put(&mut file, 32, &number(64));
    put(&mut file, 40, &number(sections));
    put(&mut file, 52, &[64, 0, 56, 0, 1, 0, 64, 0, 4, 0, 3, 0]);
    put(&mut file, 64, &[1, 0, 0, 0, 7, 0, 0, 0]);
    put(&mut file, 72, &number(0));
    put(&mut file, 80, &(address - START as u64).to_le_bytes());
    put(&mut file, 96, &end.to_le_bytes());
    put(&mut file, 104, &end.to_le_bytes());
    file
}

/// A PE file with a section of code, one of pointers into it, and one that says where those are.
pub(crate) fn pe(code: &[u8]) -> Vec<u8> {
    const START: usize = 4096;
    const BASE: u64 = 0x1_8000_0000;
    let mut file = vec![0; START];
    let address = 0x1000_u32;
    file.extend_from_slice(code);
    file.resize(file.len().next_multiple_of(512), 0xcc);
    let data = file.len();
    let at = |place: usize| address + u32::try_from(place - START).unwrap();
    for function in (0..code.len() as u64).step_by(97).take(400) {
        file.extend((BASE + u64::from(address) + function).to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(512), 0);
    let relocations = file.len();
    let page = at(data);
    let count = code.len().div_ceil(97).min(400);
    file.extend(page.to_le_bytes());
    file.extend(u32::try_from(8 + 2 * count).unwrap().to_le_bytes());
    for entry in 0..u16::try_from(count).unwrap() {
        file.extend((10 << 12 | (entry * 8)).to_le_bytes());
    }
    let end = file.len();
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &128_u32.to_le_bytes());
    put(&mut file, 128, b"PE\0\0\x64\x86\x03\0");
    put(&mut file, 128 + 20, &240_u16.to_le_bytes());
    let optional = 128 + 24;
    put(&mut file, optional, &0x20b_u16.to_le_bytes());
    put(&mut file, optional + 24, &BASE.to_le_bytes());
    let directory = optional + 112 + 5 * 8;
    put(&mut file, directory, &at(relocations).to_le_bytes());
    put(&mut file, directory + 4, &u32::try_from(end - relocations).unwrap().to_le_bytes());
    let sections =
        [(START, data, 0x6000_0020_u32), (data, relocations, 0xc000_0040), (relocations, end, 0x4200_0040)];
    for (index, (from, to, flags)) in sections.into_iter().enumerate() {
        let header = optional + 240 + index * 40;
        let length = u32::try_from(to - from).unwrap();
        for (field, value) in
            [(8, length), (12, at(from)), (16, length), (20, u32::try_from(from).unwrap()), (36, flags)]
        {
            put(&mut file, header + field, &value.to_le_bytes());
        }
    }
    file
}
