//! A message in a window that needs no graphics adapter, for the case that the window of the program cannot be drawn.

/// Shows the text until the user closes it.
pub(super) fn show(title: &str, text: &str) {
    #[cfg(all(unix, not(target_os = "macos")))]
    if x11::show(title, text).is_ok() {
        return;
    }
    rfd::MessageDialog::new().set_level(rfd::MessageLevel::Error).set_title(title).set_description(text).show();
}

/// Text of at most `columns` characters a line.
#[cfg(all(unix, not(target_os = "macos")))]
fn lines(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        lines.push(String::new());
        for word in paragraph.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => word.clone_into(line),
                Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                    *line += " ";
                    *line += word;
                }
                _ => lines.push(word.to_owned()),
            }
        }
    }
    lines
}

/// The core protocol: the server itself draws the text.
#[cfg(all(unix, not(target_os = "macos")))]
mod x11 {
    use x11rb::connection::Connection;
    use x11rb::errors::ReplyOrIdError;
    use x11rb::protocol::Event;
    use x11rb::protocol::xproto::{
        AtomEnum, ChangeGCAux, ConnectionExt, CreateGCAux, CreateWindowAux, EventMask, PropMode, WindowClass,
    };
    use x11rb::wrapper::ConnectionExt as _;

    /// Characters in a line.
    const COLUMNS: usize = 72;
    /// Size of a character, and the margin, in pixels.
    const CHARACTER: [usize; 2] = [9, 19];
    const MARGIN: usize = 20;
    /// Fonts of the core protocol; every server has the last one.
    const FONTS: [&[u8]; 2] = [b"9x15", b"fixed"];

    /// Why there is no window.
    type Failed = Box<dyn std::error::Error>;

    pub(super) fn show(title: &str, text: &str) -> Result<(), Failed> {
        let mut lines = super::lines(text, COLUMNS);
        lines.extend([String::new(), "Press any key to close this message.".to_owned()]);
        let (connection, screen) = x11rb::connect(None)?;
        let screen = connection.setup().roots.get(screen).ok_or("the display has no screen")?;
        let width = (COLUMNS * CHARACTER[0] + 2 * MARGIN) as u16;
        let height = (lines.len() * CHARACTER[1] + 2 * MARGIN) as u16;
        let middle = |whole: u16, part: u16| (whole.saturating_sub(part) / 2) as i16;
        let (left, top) = (middle(screen.width_in_pixels, width), middle(screen.height_in_pixels, height));
        let window = connection.generate_id()?;
        let events = EventMask::EXPOSURE | EventMask::KEY_PRESS;
        let look = CreateWindowAux::new().background_pixel(screen.white_pixel).event_mask(events);
        let (depth, class, visual) =
            (x11rb::COPY_DEPTH_FROM_PARENT, WindowClass::INPUT_OUTPUT, x11rb::COPY_FROM_PARENT);
        connection.create_window(depth, window, screen.root, left, top, width, height, 0, class, visual, &look)?;
        connection.change_property8(PropMode::REPLACE, window, AtomEnum::WM_NAME, AtomEnum::STRING, &latin(title))?;
        let protocols = connection.intern_atom(false, b"WM_PROTOCOLS")?.reply()?.atom;
        let delete = connection.intern_atom(false, b"WM_DELETE_WINDOW")?.reply()?.atom;
        connection.change_property32(PropMode::REPLACE, window, protocols, AtomEnum::ATOM, &[delete])?;
        let pen = connection.generate_id()?;
        let ink = CreateGCAux::new().foreground(screen.black_pixel).background(screen.white_pixel);
        connection.create_gc(pen, window, &ink)?;
        if let Some(font) = FONTS.iter().find_map(|name| font(&connection, name).ok()) {
            connection.change_gc(pen, &ChangeGCAux::new().font(font))?;
        }
        connection.map_window(window)?;
        connection.flush()?;
        loop {
            match connection.wait_for_event()? {
                Event::Expose(_) => {
                    for (i, line) in lines.iter().enumerate() {
                        let y = (MARGIN + CHARACTER[1] * (i + 1) - 5) as i16;
                        let text = latin(line);
                        connection.image_text8(window, pen, MARGIN as i16, y, &text[..text.len().min(255)])?;
                    }
                    connection.flush()?;
                }
                Event::KeyPress(_) => return Ok(()),
                Event::ClientMessage(message) if message.data.as_data32().first() == Some(&delete) => return Ok(()),
                _ => {}
            }
        }
    }

    fn font(connection: &impl Connection, name: &[u8]) -> Result<u32, ReplyOrIdError> {
        let font = connection.generate_id()?;
        connection.open_font(font, name)?.check()?;
        Ok(font)
    }

    /// Latin-1, the encoding of these fonts.
    fn latin(text: &str) -> Vec<u8> {
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
    }
}

#[cfg(all(test, unix, not(target_os = "macos")))]
mod tests {
    #[test]
    fn lines_are_broken_between_words() {
        let text = "one two three\n\nfour incomprehensibilities";
        assert_eq!(super::lines(text, 9), ["one two", "three", "", "four", "incomprehensibilities"]);
    }
}
