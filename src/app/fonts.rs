//! Fonts for names in scripts that the embedded fonts lack: the same that figures take.
//!
//! A thread reads the system's fonts when the first such character is to be drawn, because that takes up to some seconds.
//! Until then a box stands in its place. egui shapes each run of a font, so that Arabic letters join; it does not reorder
//! several runs of different directions within a line.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use egui::epaint::text::{FallbackRequest, FontInsert, FontPriority, FontProvider, InsertFontFamily};
use egui::{Context, FontData, FontFamily};

use super::theme;
use crate::evaluate::figures::SystemFonts;

/// Asks the thread for each missing character, once.
struct Finder {
    asked: Mutex<HashSet<char>>,
    wanted: Mutex<Sender<char>>,
}

impl FontProvider for Finder {
    fn font_for(&self, request: &FallbackRequest<'_>) -> Option<FontInsert> {
        let character = request.cluster.chars().next()?;
        if self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(character) {
            // Without the thread the character stays a box.
            let _ = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).send(character);
        }
        None
    }
}

/// Finds fonts for what is drawn in `context`; `fonts` is called when the first one is wanted.
pub(super) fn install(context: &Context, fonts: impl FnOnce() -> Arc<SystemFonts> + Send + 'static) {
    let (wanted, characters) = channel();
    context.add_font_provider(Arc::new(Finder { asked: Mutex::default(), wanted: Mutex::new(wanted) }));
    // The thread lives as long as the program: it and the context hold each other. It waits, and a program has one window.
    let context = context.clone();
    let read = move || find(&context, &characters, fonts);
    // Without it, names in other scripts are boxes.
    let _ = std::thread::Builder::new().name("fonts".into()).spawn(read);
}

fn find(context: &Context, characters: &Receiver<char>, fonts: impl FnOnce() -> Arc<SystemFonts>) {
    let Ok(first) = characters.recv() else { return };
    let fonts = fonts();
    let mut added = HashSet::new();
    for character in std::iter::once(first).chain(characters.iter()) {
        let Some(found) = fonts.find(character) else { continue };
        if !added.insert(found.name.clone()) {
            continue;
        }
        let families = [FontFamily::Proportional, theme::strong_family(), FontFamily::Monospace];
        let families = families.map(|family| InsertFontFamily { family, priority: FontPriority::Lowest }).to_vec();
        let data = FontData { index: found.index, ..FontData::from_owned(found.data) };
        context.add_font(FontInsert::new(&found.name, data, families));
        context.request_repaint();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::app::testing::shoot;
    use crate::app::tests::{WindowExt, open, show};
    use crate::app::{layout::PanelKind, sample};
    use crate::data::Dataset;
    use crate::evaluate::figures::system_fonts;
    use crate::worker::Update;

    const NAMES: [&str; 10] = ["猫", "犬", "ねこ", "犬猫", "قطة", "كلب", "חתול", "כלב", "cat", "an 猫 of قطة"];

    /// The sample run with these class names.
    fn renamed(view: &crate::app::view::RunView) -> Update {
        let mut info = view.info.clone().unwrap();
        let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        let rename = |set: &Dataset| {
            let (images, labels) = (set.images().to_vec(), set.labels().to_vec());
            Arc::new(Dataset::new(set.name(), names.clone(), set.shape(), images, labels).unwrap())
        };
        (info.train, info.validation, info.test) = (rename(&info.train), rename(&info.validation), rename(&info.test));
        Update::Opened(info)
    }

    #[test]
    fn names_in_other_scripts_get_a_font() {
        let directory = tempfile::tempdir().unwrap();
        let mut window = open(directory.path(), vec![], [1500.0, 1100.0], 1.0, true);
        window.run_steps(3);
        let context = window.ctx.clone();
        context.set_font_providers(Vec::new());
        // As in the program; the harness would panic until the font is there.
        context.set_missing_glyph_policy(egui::epaint::text::MissingGlyphPolicy::Tofu);
        install(&context, || Arc::new(system_fonts::for_tests()));
        window.run_steps(2);
        let app = window.state_mut().as_mut().unwrap();
        app.view = sample::run();
        let update = renamed(&app.view);
        app.view.apply(update, Instant::now());
        let has = |c: char| {
            let ids = [egui::FontId::proportional(14.0), egui::FontId::new(14.0, theme::strong_family())];
            ids.iter().all(|id| context.fonts_mut(|fonts| fonts.has_glyph(id, c)))
        };
        let letters = || NAMES.iter().flat_map(|name| name.chars());
        show(&mut window, PanelKind::Fairness);
        window.wait("the fonts", |_| letters().all(has));
        window.run_steps(4);
        shoot(&mut window, "scripts");
        // What no font has is asked for once, and nothing fails.
        assert!(!has('\u{10_fffd}'));
    }
}
