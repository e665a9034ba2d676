//! Going through a window: its pieces in spans, each with the images it is copied between.

use std::io;

use super::align::Piece;
use super::coder::Coder;
use super::corrections::{Corrections, Run};
use super::image::{HEAD_BYTES, Image};
use super::relocate::{NewImage, OldImage, Relocator};
use super::sides::{Item, ItemBytes, Part, Side, Span, item_at, next_span};

/// What both directions know of a window.
pub(super) struct WindowLayout<'a> {
    pub(super) old: &'a Side,
    pub(super) new_items: &'a [Item],
    /// The new bytes of the window.
    pub(super) new: std::ops::Range<u64>,
    /// The images that lie whole in the old bytes of the window, in order.
    pub(super) old_images: Vec<OldImage>,
    pub(super) pieces: Vec<Piece>,
}

/// The images among the old bytes of a window.
pub(super) fn old_images(old: &Side, window: &std::ops::Range<u64>) -> io::Result<Vec<OldImage>> {
    let mut images = Vec::new();
    for item in old.items.iter().filter(|item| item.part == Part::Whole) {
        if item.length < HEAD_BYTES as u64 || item.start < window.start || item.end() > window.end {
            continue;
        }
        if let Some(image) = Image::parse(&ItemBytes(old, *item), item.length)? {
            images.push(OldImage { start: item.start, length: item.length, image });
        }
    }
    Ok(images)
}

impl WindowLayout<'_> {
    /// All spans, in order.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        let mut at = self.new.start;
        let mut pieces = self.pieces.iter().copied().peekable();
        std::iter::from_fn(move || {
            while pieces.peek().is_some_and(|piece| piece.new + piece.length <= at) {
                pieces.next();
            }
            let piece = pieces.peek().copied();
            let (end, old) = match piece {
                Some(piece) if piece.new <= at => {
                    (piece.new + piece.length, Some(piece.old + (at - piece.new)))
                }
                Some(piece) => (piece.new, None),
                None => (self.new.end, None),
            };
            let mut span = next_span(self.new_items, &self.old.items, at, end.min(self.new.end), old)?;
            if let Some(old) = old
                && span.new + span.length < end
            {
                span.length = Run::whole_fields(self.old_image(old), old, span.length);
            }
            at += span.length;
            Some(span)
        })
    }

    fn old_image(&self, place: u64) -> Option<&OldImage> {
        let after = self.old_images.partition_point(|image| image.start <= place);
        let image = &self.old_images[after.checked_sub(1)?];
        (place - image.start < image.length).then_some(image)
    }

    /// A span as the run of `bytes` that it is copied from.
    pub(super) fn run<'b>(
        &'b self,
        span: Span,
        old: u64,
        bytes: &'b [u8],
        new: &'b [Option<NewImage>],
    ) -> Run<'b> {
        let new_image = new[span.item].as_ref().filter(|_| span.body);
        Run { old, new: span.new, bytes, images: self.old_image(old).zip(new_image) }
    }
}

/// Where bytes of spans come from, or go.
pub(super) trait Spans {
    /// The error of either.
    type Error: From<io::Error>;

    /// Bytes that are new: `buffer` holds them, or gets them.
    fn literal(&mut self, span: Span, words: bool, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Before a copied span is coded: an encoder puts its new bytes into `buffer`.
    fn before_copy(&mut self, span: Span, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// A span is done: `buffer` holds its new bytes.
    fn done(&mut self, span: Span, buffer: &[u8], images: &mut [Option<NewImage>])
    -> Result<(), Self::Error>;
}

/// Codes all spans of a window. `images` are those of the new side, by item: an encoder knows them, a decoder learns them
/// as their heads come out.
pub(super) fn code_spans<C: Coder, S: Spans>(
    coder: &mut C,
    layout: &WindowLayout<'_>,
    images: &mut [Option<NewImage>],
    gaps: &mut dyn Iterator<Item = u64>,
    to: &mut S,
) -> Result<(), S::Error> {
    let mut corrections = Corrections::new();
    let mut relocator = Relocator::new(&layout.pieces);
    let (mut old_bytes, mut new_bytes) = (Vec::new(), Vec::new());
    for span in layout.spans() {
        let length = usize::try_from(span.length).unwrap_or(0);
        new_bytes.resize(length, 0);
        match span.old {
            None => to.literal(span, span.body && images[span.item].is_some(), &mut new_bytes)?,
            Some(old) => {
                old_bytes.resize(length, 0);
                super::image::ReadAt::read_at(layout.old, old, &mut old_bytes)?;
                to.before_copy(span, &mut new_bytes)?;
                let run = layout.run(span, old, &old_bytes, images);
                corrections.code(coder, run, &mut relocator, &mut new_bytes, gaps);
            }
        }
        to.done(span, &new_bytes, images)?;
    }
    Ok(())
}

/// True when the new bytes of a window are covered by items.
pub(super) fn is_covered(items: &[Item], window: &std::ops::Range<u64>) -> bool {
    window.is_empty() || (item_at(items, window.start).is_some() && item_at(items, window.end - 1).is_some())
}
