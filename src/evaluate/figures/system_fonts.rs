//! Fonts for characters that the embedded font lacks, such as names of classes in other scripts. Figures and the window take
//! the same ones.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use fontdb::{Database, FaceInfo, ID, Style};
use skrifa::{FontRef, MetadataProvider};

use super::text;

/// Weight of the embedded font.
const REGULAR: i32 = 400;

/// A set of fonts, and which characters they have.
#[derive(Debug)]
pub struct SystemFonts {
    database: Arc<Database>,
    /// The faces in the order in which they are asked.
    order: Vec<ID>,
    /// First and last character of each range that a face has; filled as faces are asked.
    ranges: Mutex<HashMap<ID, Vec<(u32, u32)>>>,
}

/// A font that has a character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFont {
    /// A name that no other face has.
    pub name: String,
    /// The bytes of its file.
    pub data: Vec<u8>,
    /// The face within the file.
    pub index: u32,
}

static INSTALLED: LazyLock<Arc<SystemFonts>> = LazyLock::new(|| {
    let mut database = embedded();
    database.load_system_fonts();
    Arc::new(SystemFonts::new(database))
});

impl SystemFonts {
    /// The embedded fonts and those of the system. The first call reads all of them, which may take a second.
    pub fn installed() -> Arc<Self> {
        Arc::clone(&INSTALLED)
    }

    /// The fonts of a database: upright ones of regular weight are taken first.
    pub fn new(database: Database) -> Self {
        let mut faces: Vec<&FaceInfo> = database.faces().collect();
        let rank = |face: &FaceInfo| {
            (face.style != Style::Normal, (i32::from(face.weight.0) - REGULAR).abs(), face.monospaced)
        };
        faces.sort_by_key(|face| rank(face));
        let order = faces.into_iter().map(|face| face.id).collect();
        Self { database: Arc::new(database), order, ranges: Mutex::default() }
    }

    /// The fonts, for the renderer of figures.
    pub(super) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The first face, other than those in `except`, that has a character; `None` if none has it.
    pub(super) fn face(&self, character: char, except: &[ID]) -> Option<ID> {
        self.order.iter().copied().find(|id| !except.contains(id) && self.has(*id, character))
    }

    /// The font for a character that the embedded font lacks; `None` if no font has it. Reads files, so call it on a thread
    /// that draws nothing.
    pub fn find(&self, character: char) -> Option<FoundFont> {
        let id = self.face(character, &[])?;
        let name = format!("{}, {id}", self.database.face(id)?.post_script_name);
        self.database.with_face_data(id, |data, index| FoundFont { name, data: data.to_vec(), index })
    }

    fn has(&self, id: ID, character: char) -> bool {
        let mut known = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = known.entry(id).or_insert_with(|| self.ranges_of(id));
        let (code, after) = (u32::from(character), |range: &(u32, u32)| range.0 <= u32::from(character));
        ranges[..ranges.partition_point(after)].last().is_some_and(|(_, last)| code <= *last)
    }

    /// Empty if the font cannot be read.
    fn ranges_of(&self, id: ID) -> Vec<(u32, u32)> {
        let codes = self.database.with_face_data(id, |data, index| {
            let font = FontRef::from_index(data, index).ok()?;
            Some(font.charmap().mappings().map(|(code, _)| code).collect::<Vec<u32>>())
        });
        let mut codes = codes.flatten().unwrap_or_default();
        codes.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for code in codes {
            match ranges.last_mut() {
                Some((_, last)) if code <= last.saturating_add(1) => *last = code,
                _ => ranges.push((code, code)),
            }
        }
        ranges
    }
}

/// The embedded fonts.
pub(super) fn embedded() -> Database {
    let mut database = Database::new();
    database.load_font_data(text::REGULAR.to_vec());
    database.load_font_data(text::SEMI_BOLD.to_vec());
    database.set_sans_serif_family(text::FAMILY);
    database
}

/// The small fonts of the tests, which have a few characters of other scripts.
#[cfg(test)]
pub(crate) fn for_tests() -> SystemFonts {
    let mut database = embedded();
    database.load_fonts_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fonts"));
    SystemFonts::new(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_its_font_and_what_none_has_is_none() {
        let fonts = for_tests();
        let name = |c| fonts.find(c).map(|found| found.name);
        assert!(name('a').unwrap().contains("Fairtat"), "{:?}", name('a'));
        let (han, kana) = (name('猫').unwrap(), name('ね').unwrap());
        assert!(han == kana && han.contains("Droid"), "{han} {kana}");
        assert!(name('ق').unwrap().contains("Arabic") && name('ח').unwrap().contains("Hebrew"));
        assert_eq!(name('\u{10_fffd}'), None);
        let found = fonts.find('猫').unwrap();
        assert!(FontRef::from_index(&found.data, found.index).unwrap().charmap().map('猫').is_some());
        let first = fonts.face('猫', &[]).unwrap();
        assert_eq!(fonts.face('猫', &[first]), None);
    }
}
