//! Reads the protobuf wire format of descriptors. Not for network input: it stops at the first
//! byte that makes no sense.

/// A field's value on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    /// Variable length integer.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes, a message or a packed list.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    /// The integer; 0 when it is none.
    pub(crate) fn int(self) -> u64 {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value,
            Self::Fixed32(value) => value.into(),
            Self::Bytes(_) => 0,
        }
    }

    /// True for the boolean true.
    pub(crate) fn flag(self) -> bool {
        self.int() != 0
    }

    /// The number of an enum value or an `int32`: negative ones take ten bytes on the wire.
    pub(crate) fn int32(self) -> i32 {
        i32::try_from(self.int().cast_signed()).unwrap_or(0)
    }

    /// The bytes; empty when there are none.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => &[],
        }
    }

    /// The text; empty when it is none.
    pub(crate) fn text(self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or("")
    }

    /// The fields of a message.
    pub(crate) fn fields(self) -> Fields<'a> {
        Fields(self.bytes())
    }
}

/// Iterates over the fields of a message: number and value.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The last value of a field, if it is set.
    pub(crate) fn find(self, number: u32) -> Option<Wire<'a>> {
        self.filter(|(n, _)| *n == number).map(|(_, value)| value).last()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Wire<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((number, value))
    }
}
