//! Exporting figures: they are rendered and written on separate threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::context::{Export, Format};
use super::level::Level;
use crate::evaluate::figures;
use crate::files::write_atomic;

/// See the [module](self).
pub(super) struct Exporter {
    context: egui::Context,
    results: Receiver<(Level, String)>,
    sender: Sender<(Level, String)>,
}

impl Exporter {
    /// `context` is that of the window, whose clipboard is used.
    pub(super) fn new(context: egui::Context) -> Self {
        let (sender, results) = channel();
        Self { context, results, sender }
    }

    /// Messages about the exports that finished since the last call.
    pub(super) fn done(&mut self) -> Vec<(Level, String)> {
        self.results.try_iter().collect()
    }

    /// Copies a figure, or returns the file name and contents to save.
    pub(super) fn begin(&mut self, export: Export, format: Format) -> Option<(String, Arc<[u8]>)> {
        let Export { name, svg, csv } = export;
        match format {
            Format::Svg => Some((format!("{name}.svg"), svg.into_bytes().into())),
            Format::Csv => Some((format!("{name}.csv"), csv.into_bytes().into())),
            Format::CopyCsv => {
                self.context.copy_text(csv);
                let _ = self.sender.send((Level::Info, "The numbers are on the clipboard.".into()));
                None
            }
            // A large figure takes a tenth of a second, which is acceptable for an explicit user action.
            Format::Png | Format::CopyImage => match figures::png(&svg) {
                Ok(bytes) if format == Format::Png => Some((format!("{name}.png"), bytes.into())),
                Ok(bytes) => {
                    match image::load_from_memory(&bytes) {
                        Ok(image) => {
                            let image = image.to_rgba8();
                            let size = [image.width() as usize, image.height() as usize];
                            self.context.copy_image(egui::ColorImage::from_rgba_unmultiplied(size, &image));
                            let _ = self.sender.send((Level::Info, "The figure is on the clipboard.".into()));
                        }
                        Err(error) => {
                            let _ = self.sender.send((Level::Error, format!("{name}: {error}")));
                        }
                    }
                    None
                }
                Err(error) => {
                    let _ = self.sender.send((Level::Error, format!("{name}: {error}")));
                    None
                }
            },
        }
    }

    /// Writes a file and reports when it is done.
    pub(super) fn write(&self, path: PathBuf, bytes: Arc<[u8]>) {
        let (sender, context) = (self.sender.clone(), self.context.clone());
        let write = move || {
            let shown = path.display();
            let result = match write_atomic(&path, &bytes) {
                Ok(()) => (Level::Info, format!("Wrote {shown}.")),
                Err(error) => (Level::Error, format!("{error}; choose another place.")),
            };
            let _ = sender.send(result);
            context.request_repaint();
        };
        if let Err(error) = std::thread::Builder::new().name("export".into()).spawn(write) {
            let _ = self.sender.send((Level::Error, format!("The file was not written: {error}")));
        }
    }
}
