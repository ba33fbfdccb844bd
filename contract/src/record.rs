//! Records: the state of something live on its way to another process.
//!
//! A record is `{kind, version, fields}`. A field is `{tag, length, bytes}`; the highest bit of the
//! tag says that a reader which does not know the field must not take the record. So a newer program
//! can add what an older one may ignore, and can also say what it must not ignore: then this one
//! connection stays where it is, and no other.
//!
//! ```text
//! kind u16 | version u16 | { tag u16 | length u32 | bytes }*        all little-endian
//! ```
//! Nothing here knows what is moved. Values are fixed-size numbers, byte strings and lists of them.

use std::ops::Range;

/// Bit of a tag: who does not know the field must refuse the record.
const CRITICAL: u16 = 0x8000;
/// Bytes before the first field.
const HEADER: usize = 4;
/// Bytes before the value of a field.
const FIELD_HEADER: usize = 6;
/// Most fields of one record; the largest one of ours has 60.
const MAX_FIELDS: usize = 1024;

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It ends in the middle of something.
    #[error("the record is cut off")]
    Truncated,
    /// It has more fields than any writer makes.
    #[error("the record has more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// The same field twice.
    #[error("field {0} of the record is there twice")]
    Twice(u16),
    /// A field that is needed is missing.
    #[error("field {0} of the record is missing")]
    Missing(u16),
    /// A field has not the form it must have.
    #[error("field {0} of the record is malformed")]
    Malformed(u16),
    /// A field that must be understood is not known to this program.
    #[error("the record has the critical field {0}, which this program does not know")]
    UnknownCritical(u16),
}

/// Whether a reader may ignore a field it does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// It may not.
    Critical,
    /// It may.
    Optional,
}

/// Makes a record.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    weight: Weight,
}

impl Writer {
    /// A record of this kind, in the version this program writes. Fields are critical until
    /// [`Self::optional`] is called.
    pub fn new(kind: u16, version: u16) -> Self {
        let bytes = [kind.to_le_bytes(), version.to_le_bytes()].concat();
        Self { bytes, weight: Weight::Critical }
    }

    /// The fields that follow may be ignored by who does not know them.
    pub fn optional(&mut self) -> &mut Self {
        self.weight = Weight::Optional;
        self
    }

    /// The fields that follow may not be ignored.
    pub fn critical(&mut self) -> &mut Self {
        self.weight = Weight::Critical;
        self
    }

    /// Adds a field of any bytes. Tags are below 0x8000, each is used once.
    pub fn bytes(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        let bit = if self.weight == Weight::Critical { CRITICAL } else { 0 };
        self.bytes.extend_from_slice(&(tag | bit).to_le_bytes());
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, tag: u16, value: u64) -> &mut Self {
        self.bytes(tag, &value.to_le_bytes())
    }

    /// Adds a number, or nothing.
    pub fn maybe(&mut self, tag: u16, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.number(tag, value),
            None => self,
        }
    }

    /// Adds a text.
    pub fn text(&mut self, tag: u16, value: &str) -> &mut Self {
        self.bytes(tag, value.as_bytes())
    }

    /// Adds a list of byte strings.
    pub fn list<'a>(&mut self, tag: u16, items: impl IntoIterator<Item = &'a [u8]>) -> &mut Self {
        let mut value = Vec::new();
        for item in items {
            let length = u32::try_from(item.len()).unwrap_or(u32::MAX);
            value.extend_from_slice(&length.to_le_bytes());
            value.extend_from_slice(item);
        }
        self.bytes(tag, &value)
    }

    /// The record.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A field and where its value is.
#[derive(Clone, Debug)]
struct Field {
    tag: u16,
    weight: Weight,
    value: Range<usize>,
    read: bool,
}

/// Reads a record. Ask for every field that is known, then call [`Self::finish`].
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// What it is a record of.
    pub kind: u16,
    /// Version of the writer.
    pub version: u16,
    bytes: &'a [u8],
    fields: Vec<Field>,
}

impl<'a> Reader<'a> {
    /// Finds the fields.
    ///
    /// # Errors
    /// When the bytes are no record.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (kind, version) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
        let mut fields: Vec<Field> = Vec::new();
        let mut at = HEADER;
        while at < bytes.len() {
            let tag = u16_at(bytes, at)?;
            let length = u32_at(bytes, at.saturating_add(2))?;
            let start = at.saturating_add(FIELD_HEADER);
            let length = usize::try_from(length).map_err(|_| RecordError::Truncated)?;
            let end = start.checked_add(length).ok_or(RecordError::Truncated)?;
            if end > bytes.len() {
                return Err(RecordError::Truncated);
            }
            if fields.len() >= MAX_FIELDS {
                return Err(RecordError::TooManyFields);
            }
            let weight = if tag & CRITICAL == 0 { Weight::Optional } else { Weight::Critical };
            fields.push(Field { tag: tag & !CRITICAL, weight, value: start..end, read: false });
            at = end;
        }
        fields.sort_by_key(|field| field.tag);
        let twice = fields.array_windows().find(|[a, b]| a.tag == b.tag);
        match twice {
            Some([field, _]) => Err(RecordError::Twice(field.tag)),
            None => Ok(Self { kind, version, bytes, fields }),
        }
    }

    /// The value of a field that may be missing.
    pub fn maybe_bytes(&mut self, tag: u16) -> Option<&'a [u8]> {
        let at = self.fields.binary_search_by_key(&tag, |field| field.tag).ok()?;
        let field = self.fields.get_mut(at)?;
        field.read = true;
        self.bytes.get(field.value.clone())
    }

    /// The value of a field.
    ///
    /// # Errors
    /// When it is missing.
    pub fn bytes(&mut self, tag: u16) -> Result<&'a [u8], RecordError> {
        self.maybe_bytes(tag).ok_or(RecordError::Missing(tag))
    }

    /// A number that may be missing.
    ///
    /// # Errors
    /// When the field is no number.
    pub fn maybe(&mut self, tag: u16) -> Result<Option<u64>, RecordError> {
        let Some(bytes) = self.maybe_bytes(tag) else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| RecordError::Malformed(tag))?;
        Ok(Some(u64::from_le_bytes(bytes)))
    }

    /// A number.
    ///
    /// # Errors
    /// When it is missing or no number.
    pub fn number(&mut self, tag: u16) -> Result<u64, RecordError> {
        self.maybe(tag)?.ok_or(RecordError::Missing(tag))
    }

    /// A number of a narrower type.
    ///
    /// # Errors
    /// When it is missing, no number, or too large for the type.
    pub fn narrow<T: TryFrom<u64>>(&mut self, tag: u16) -> Result<T, RecordError> {
        T::try_from(self.number(tag)?).map_err(|_| RecordError::Malformed(tag))
    }

    /// 0 or 1.
    ///
    /// # Errors
    /// When it is missing or another number.
    pub fn flag(&mut self, tag: u16) -> Result<bool, RecordError> {
        match self.number(tag)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Malformed(tag)),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When it is missing or not UTF-8.
    pub fn text(&mut self, tag: u16) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.bytes(tag)?).map_err(|_| RecordError::Malformed(tag))
    }

    /// A list of byte strings; empty when the field is missing.
    ///
    /// # Errors
    /// When its lengths do not fit.
    pub fn list(&mut self, tag: u16) -> Result<Vec<&'a [u8]>, RecordError> {
        let mut rest = self.maybe_bytes(tag).unwrap_or_default();
        let malformed = || RecordError::Malformed(tag);
        let mut items = Vec::new();
        while !rest.is_empty() {
            let length = u32_at(rest, 0).map_err(|_| malformed())?;
            let length = usize::try_from(length).map_err(|_| malformed())?;
            let (_, after) = rest.split_at_checked(4).ok_or_else(malformed)?;
            let (item, after) = after.split_at_checked(length).ok_or_else(malformed)?;
            items.push(item);
            rest = after;
        }
        Ok(items)
    }

    /// Makes sure that nothing was left that must be understood.
    ///
    /// # Errors
    /// The first critical field nobody asked for.
    pub fn finish(self) -> Result<(), RecordError> {
        let unknown = |field: &&Field| field.weight == Weight::Critical && !field.read;
        match self.fields.iter().find(unknown) {
            Some(field) => Err(RecordError::UnknownCritical(field.tag)),
            None => Ok(()),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, RecordError> {
    let found =
        at.checked_add(2).and_then(|end| bytes.get(at..end)).ok_or(RecordError::Truncated)?;
    found.try_into().map(u16::from_le_bytes).map_err(|_| RecordError::Truncated)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, RecordError> {
    let found =
        at.checked_add(4).and_then(|end| bytes.get(at..end)).ok_or(RecordError::Truncated)?;
    found.try_into().map(u32::from_le_bytes).map_err(|_| RecordError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let mut writer = Writer::new(3, 1);
        writer.number(1, 77).text(2, "héllo").maybe(3, None).maybe(4, Some(4));
        writer.list(5, [&b"a"[..], b"", b"ccc"]).number(6, 1);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).expect("a record");
        assert_eq!((reader.kind, reader.version), (3, 1));
        assert_eq!(reader.number(1), Ok(77));
        assert_eq!(reader.text(2), Ok("héllo"));
        assert_eq!(reader.maybe(3), Ok(None));
        assert_eq!(reader.narrow::<u8>(4), Ok(4));
        assert_eq!(reader.list(5), Ok(vec![&b"a"[..], b"", b"ccc"]));
        assert_eq!(reader.flag(6), Ok(true));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn an_unknown_field_is_ignored_unless_it_is_critical() {
        let mut writer = Writer::new(1, 2);
        writer.number(1, 1).optional().number(900, 5);
        let bytes = writer.clone().finish();
        let mut reader = Reader::new(&bytes).expect("a record");
        assert_eq!(reader.number(1), Ok(1));
        assert_eq!(reader.finish(), Ok(()));
        writer.critical().number(901, 5);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).expect("a record");
        assert_eq!(reader.number(1), Ok(1));
        assert_eq!(reader.finish(), Err(RecordError::UnknownCritical(901)));
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let mut writer = Writer::new(1, 1);
        writer.number(8, 1).optional().number(8, 2);
        assert_eq!(Reader::new(&writer.finish()).err(), Some(RecordError::Twice(8)));
    }

    #[test]
    fn a_number_that_does_not_fit_is_malformed() {
        let mut writer = Writer::new(1, 1);
        writer.number(1, 300).bytes(2, b"x").number(3, 2);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).expect("a record");
        assert_eq!(reader.narrow::<u8>(1), Err(RecordError::Malformed(1)));
        assert_eq!(reader.number(2), Err(RecordError::Malformed(2)));
        assert_eq!(reader.flag(3), Err(RecordError::Malformed(3)));
        assert_eq!(reader.number(4), Err(RecordError::Missing(4)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut reader) = Reader::new(&bytes) {
                let lists = (0..300).filter(|tag| reader.list(*tag).is_ok()).count();
                prop_assert!(lists <= 300);
                prop_assert!(reader.finish().is_ok() || !bytes.is_empty());
            }
        }

        #[test]
        fn a_cut_record_is_never_read_as_a_whole_one(cut in 1_usize..40) {
            let mut writer = Writer::new(1, 1);
            writer.number(1, 5).text(2, "some text").number(3, 9);
            let bytes = writer.finish();
            let bytes = &bytes[..bytes.len() - cut.min(bytes.len())];
            let whole = Reader::new(bytes).and_then(|mut r| Ok((r.number(1)?, r.text(2)?.to_owned(), r.number(3)?)));
            prop_assert!(whole.is_err());
        }
    }
}
