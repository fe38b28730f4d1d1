"""Two tabs of headless Chromium on different workers draw on the demo's board; prints "ok" when each has seen the other's line.

Usage: chromium_board.py URL. A tab is opened again until its board sits on another worker than the first one's.
"""

import sys

from chromium_page import Tab, run

ATTEMPTS = 40
BOARD = """new Promise(done => {
    const look = () => document.body?.dataset.board ? done(document.body.dataset.board) : setTimeout(look, 20);
    look();
})"""
# The number of lines that the page has drawn: its own come back to it as well.
STROKES = """new Promise(done => {
    const look = () => Number(document.body.dataset.strokes || 0) >= %d ? done("seen") : setTimeout(look, 20);
    look();
})"""


def drive(browser):
    url = sys.argv[1]
    first = Tab(browser, url)
    slot = first.wait(BOARD)
    for _ in range(ATTEMPTS):
        second = Tab(browser, url)
        if second.wait(BOARD) != slot:
            break
        second.close()
    else:
        sys.exit(f"every tab's board was on worker {slot}")
    for count, tab in enumerate([first, second, first], 1):
        tab.wait("new Promise(done => { drawLine(1, 2, 30, 40); done('drawn'); })")
        for seer in [first, second]:
            seer.wait(STROKES % count)
    return "ok"


run(drive)
