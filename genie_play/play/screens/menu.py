"""The menu behind Esc: everything that a key does, for those who do not know the key."""

from __future__ import annotations

from genie_play.play.items import Canvas, Event, Item
from genie_play.play.widgets import Choice, Menu


class MenuScreen:
    """A modal menu; the names of its choices are commands."""

    typing = False

    def __init__(self, flow: bool, recording: bool, can_play: bool) -> None:
        choices = [
            Choice("resume", "Play on", "Esc"),
            Choice("gallery", "Pictures and play-throughs"),
            Choice("open", "Open a file …", "Ctrl+O"),
            Choice("paste", "Paste a picture", "Ctrl+V"),
        ]
        if can_play:
            choices += [
                Choice("home", "Back to the first picture", "Home"),
                Choice("reseed", "New random seed from here", "G"),
                Choice("gif", "Save the last 8 seconds as a GIF", "F9"),
                Choice("record", "End the recording" if recording else "Start a long recording", "Shift+F9"),
            ]
        choices += [
            Choice("flow", "Let the world wait for you" if flow else "Let time flow", "T"),
            Choice("fullscreen", "Fullscreen", "F11"),
            Choice("help", "Keys", "F1"),
            Choice("quit", "Quit", "Ctrl+Q"),
        ]
        self.menu = Menu("Genie Play", choices)

    def handle(self, event: Event) -> str:
        return self.menu.focus.handle(event)

    def draw(self, canvas: Canvas) -> list[Item]:
        return self.menu.draw(canvas)
