//! DNS messages (RFC 1035), as far as looking for a service needs them: one question out, its answers in.
//!
//! ```text
//! id 2 · flags 2 · counts 4 × 2 · question: name, kind 2, class 2 · records: name, kind 2, class 2, ttl 4, length 2, data
//! name: labels of a length and as many bytes, ended by 0 or by a pointer (11……) to an earlier name
//! ```
//!
//! Threats and the defence for each:
//! - *Names that point in circles, or grow*: a pointer leads strictly backwards, and a name has 255 bytes at most.
//! - *Counts and lengths that lie*: nothing is read past the message or a record's own data; [`MAX_RECORDS`] are looked at.
//! - *Names that are more than names where they become part of an address*: [`host`] lets letters, digits, hyphens and dots pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A datagram of our side of the world: with EDNS or multicast, no more than an Ethernet frame or a few.
pub(super) const MAX_MESSAGE_BYTES: usize = 9000;
/// Records of one message.
const MAX_RECORDS: usize = 64;
/// RFC 1035, 2.3.4.
const MAX_NAME_BYTES: usize = 255;
const MAX_LABEL_BYTES: usize = 63;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    Pointer = 12,
    Service = 33,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Pointer { name: String, to: String },
    Service { name: String, priority: u16, weight: u16, port: u16, target: String },
    Text { name: String, members: Vec<String> },
    Address { name: String, address: IpAddr },
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the name cannot be asked for")]
    Name,
    #[error("the message ends early, or a length in it lies")]
    Short,
    #[error("a name in the message points forwards or is too long")]
    BadName,
    #[error("the message is no answer to this question")]
    Other,
    #[error("the server answers with error {0}")]
    Refused(u8),
}

/// A question; with `unicast`, which asks whoever answers on the link to answer the asker alone (RFC 6762, 5.4), and without
/// recursion.
pub(super) fn question(id: u16, name: &str, kind: Kind, unicast: bool) -> Result<Vec<u8>, MessageError> {
    let (flags, class): (u16, u16) = if unicast { (0, 0x8001) } else { (0x0100, 1) };
    let mut message = Vec::with_capacity(64);
    for word in [id, flags, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    let begun = message.len();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        message.push(length.ok_or(MessageError::Name)?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() - begun > MAX_NAME_BYTES {
        return Err(MessageError::Name);
    }
    message.extend((kind as u16).to_be_bytes());
    message.extend(class.to_be_bytes());
    Ok(message)
}

/// The records of an answer to the question of this id, additional ones among them. None where the name does not exist.
pub(super) fn answers(message: &[u8], id: u16) -> Result<Vec<Record>, MessageError> {
    let mut reader = Reader { message, at: 0 };
    let (answered, flags) = (reader.word()?, reader.word()?);
    if answered != id || flags & 0xf800 != 0x8000 {
        return Err(MessageError::Other);
    }
    match flags & 0xf {
        0 => {}
        3 => return Ok(Vec::new()),
        error => return Err(MessageError::Refused(error.to_be_bytes()[1])),
    }
    let questions = reader.word()?;
    let records = [reader.word()?, reader.word()?, reader.word()?];
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut found = Vec::new();
    let count: usize = records.into_iter().map(usize::from).sum();
    for _ in 0..count.min(MAX_RECORDS) {
        // A message that was cut to fit ends within a record; what came before it counts.
        match reader.record() {
            Ok(record) => found.extend(record),
            Err(MessageError::Short) if flags & 0x0200 != 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A name that can be part of an address: lower case, without the last dot.
pub(super) fn host(name: &str) -> Option<&str> {
    let name = name.trim_end_matches('.');
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let is_host =
        !name.is_empty() && name.bytes().all(plain) && !name.contains("..") && !name.starts_with('.');
    is_host.then_some(name)
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(bytes).ok_or(MessageError::Short)?;
        let taken = self.message.get(self.at..end).ok_or(MessageError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u16, MessageError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name in lower case, each label followed by a dot; a dot within a label is written `\.`.
    fn name(&mut self) -> Result<String, MessageError> {
        let (mut name, mut bytes) = (String::new(), 0);
        let mut begun = self.at;
        let mut after = None;
        loop {
            let length = usize::from(self.byte()?);
            match length {
                0 => break,
                1..=MAX_LABEL_BYTES => {
                    let label = self.take(length)?;
                    bytes += length + 1;
                    if bytes > MAX_NAME_BYTES {
                        return Err(MessageError::BadName);
                    }
                    let label = String::from_utf8_lossy(label).to_ascii_lowercase();
                    name.push_str(&label.replace('\\', "\\\\").replace('.', "\\."));
                    name.push('.');
                }
                0xc0.. => {
                    let to = (length & 0x3f) << 8 | usize::from(self.byte()?);
                    after.get_or_insert(self.at);
                    if to >= begun {
                        return Err(MessageError::BadName);
                    }
                    (self.at, begun) = (to, to);
                }
                _ => return Err(MessageError::BadName),
            }
        }
        self.at = after.unwrap_or(self.at);
        Ok(name)
    }

    /// The next record; `None` for one of another kind or class.
    fn record(&mut self) -> Result<Option<Record>, MessageError> {
        let name = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        self.take(4)?;
        let length = usize::from(self.word()?);
        let end = self.at.checked_add(length).ok_or(MessageError::Short)?;
        // What a record says of itself, names that it shares with others apart, lies within its own data.
        let mut data = Reader { message: self.message.get(..end).ok_or(MessageError::Short)?, at: self.at };
        self.at = end;
        // The highest bit is multicast DNS's own (RFC 6762, 10.2).
        if class & 0x7fff != 1 {
            return Ok(None);
        }
        let record = match kind {
            1 => {
                let bytes: [u8; 4] = data.take(4)?.try_into().map_err(|_| MessageError::Short)?;
                Record::Address { name, address: Ipv4Addr::from(bytes).into() }
            }
            28 => {
                let bytes: [u8; 16] = data.take(16)?.try_into().map_err(|_| MessageError::Short)?;
                Record::Address { name, address: Ipv6Addr::from(bytes).into() }
            }
            12 => Record::Pointer { name, to: data.name()? },
            33 => {
                let (priority, weight, port) = (data.word()?, data.word()?, data.word()?);
                Record::Service { name, priority, weight, port, target: data.name()? }
            }
            16 => {
                let mut members = Vec::new();
                while data.at < end {
                    let length = usize::from(data.byte()?);
                    members.push(String::from_utf8_lossy(data.take(length)?).into_owned());
                }
                return Ok(Some(Record::Text { name, members }));
            }
            _ => return Ok(None),
        };
        if data.at == end { Ok(Some(record)) } else { Err(MessageError::Short) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer as a DNS server packs it: names after the first point back.
    pub(crate) fn packed(id: u16) -> Vec<u8> {
        let mut message = question(id, "_mirabelle._tcp.college.example", Kind::Service, false).unwrap();
        message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        message[6..8].copy_from_slice(&2_u16.to_be_bytes());
        message[10..12].copy_from_slice(&1_u16.to_be_bytes());
        for (priority, host) in [(20_u16, "spare"), (10, "node")] {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            let target = message.len() + 2 + 6;
            let mut data = Vec::new();
            for word in [priority, 0, 8701] {
                data.extend(word.to_be_bytes());
            }
            data.push(u8::try_from(host.len()).unwrap());
            data.extend(host.as_bytes());
            // `college.example` within the question.
            data.extend([0xc0, 12 + 16]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(data);
            assert_eq!(message[target], u8::try_from(host.len()).unwrap());
        }
        let node = u8::try_from(message.len() - 7).unwrap();
        message.extend([0xc0, node, 0, 1, 0x80, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        message
    }

    #[test]
    fn reads_what_a_server_packs() {
        let found = answers(&packed(7), 7).unwrap();
        let service = |priority, target: &str| Record::Service {
            name: "_mirabelle._tcp.college.example.".to_owned(),
            priority,
            weight: 0,
            port: 8701,
            target: target.to_owned(),
        };
        assert_eq!(found[0], service(20, "spare.college.example."));
        assert_eq!(found[1], service(10, "node.college.example."));
        let address = Record::Address {
            name: "node.college.example.".to_owned(),
            address: "192.0.2.7".parse().unwrap(),
        };
        assert_eq!(found[2], address);
    }

    #[test]
    fn refuses_other_questions_errors_circles_and_what_ends_early() {
        let packed = packed(7);
        assert_eq!(answers(&packed, 8), Err(MessageError::Other));
        let with = |at: usize, byte: u8| {
            let mut bent = packed.clone();
            bent[at] = byte;
            answers(&bent, 7)
        };
        assert_eq!(with(2, 0x01), Err(MessageError::Other), "a question");
        assert_eq!(with(3, 0x83), Ok(Vec::new()), "no such name");
        assert_eq!(with(3, 0x82), Err(MessageError::Refused(2)));
        let first = packed.windows(2).position(|two| two == [0xc0, 12]).unwrap();
        assert_eq!(with(first + 1, u8::try_from(first).unwrap()), Err(MessageError::BadName), "itself");
        assert_eq!(with(first + 1, 0xff), Err(MessageError::BadName), "forwards");
        assert_eq!(with(first + 11, 200), Err(MessageError::Short), "a length that lies");
        for cut in 0..packed.len() {
            assert!(answers(&packed[..cut], 7).is_err(), "{cut}");
        }
        let mut cut = packed[..packed.len() - 3].to_vec();
        cut[2] |= 0x02;
        assert_eq!(answers(&cut, 7).unwrap().len(), 2, "what came before the cut");
        for name in ["", "a..b", &"x".repeat(64), &["abcdefgh"; 40].join(".")] {
            assert_eq!(question(1, name, Kind::Service, false), Err(MessageError::Name), "{name}");
        }
    }

    #[test]
    fn only_a_host_becomes_part_of_an_address() {
        assert_eq!(host("node.college.example."), Some("node.college.example"));
        for other in [".", "", "a@b.", "a/b.", "a\\.b.", "a b.", "é.", "a:1.", "-..x."] {
            assert_eq!(host(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let id = bytes.get(..2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
            let _ = answers(&bytes, id);
        }

        #[test]
        fn a_bent_answer_is_read_or_refused(at in 0_usize..150, byte: u8, second in 0_usize..150, other: u8) {
            let mut message = packed(7);
            let length = message.len();
            message[at % length] = byte;
            message[second % length] = other;
            for record in answers(&message, 7).unwrap_or_default() {
                if let Record::Service { target, .. } = record {
                    let escaped = target.matches("\\\\").count() + target.matches("\\.").count();
                    prop_assert!(target.len() <= 4 * (MAX_NAME_BYTES + escaped));
                }
            }
        }
    }
}
