"""Tuning a page's prompts in the background: how far it is, when it ends, what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Thread

from ..structures import PromptBank
from .page_session import DrawnBoxes, PageSession

# A page asks twice a second; one in a hidden tab, which browsers slow down, once a minute.
LONGEST_SILENCE = 150  # seconds
_log = logging.getLogger(__name__)

# Called after each step with the steps done and all steps; raises Stopped.
Progress = Callable[[int, int], None]


class Stopped(Exception):
    """Nobody waits for the tuning any more, or it takes too long."""


class Improvement:
    """A tuning of a page's prompts, in a thread of its own.

    Args:
        session: the page, which has to go on asking.
        references: all its boxes; what comes of it is in force as long as these are the same.
        most_minutes: then it is given up.
    """

    def __init__(
        self, session: PageSession, references: tuple[DrawnBoxes, ...], most_minutes: float
    ) -> None:
        self.references = references
        self.bank: PromptBank | None = None  # what came of it
        self._session = session
        self._most_minutes = most_minutes
        self._cancelled = False
        self._status: dict = dict(state='waiting', done=0, all=0, message='')

    def start(self, tune: Callable[[Improvement], PromptBank]) -> None:
        """Tune in the background."""
        # A daemon: Ctrl+C ends the server, whatever is running.
        Thread(target=self._run, args=(tune,), daemon=True).start()

    def cancel(self) -> None:
        """End it at its next step."""
        self._cancelled = True

    def status(self) -> dict:
        """State ('waiting', 'running', 'done', 'failed'), progress, message; in the end more.

        That is ``steps`` that were taken (0: the mean was kept), ``loss_before`` and
        ``loss_after`` of the images held out (None: there were none), ``tuned`` (class names).
        """
        return dict(self._status)

    def begins(self) -> None:
        """Its turn has come."""
        self._began = time.monotonic()
        self._status['state'] = 'running'

    def progress(self, done: int, all_steps: int) -> None:
        """After each step.

        Raises:
            Stopped: it is to end.
        """
        self._status |= dict(done=done, all=all_steps)
        self.go_on()
        if time.monotonic() - self._began > 60 * self._most_minutes:
            raise Stopped(
                f'Stopped after {self._most_minutes:g} minutes, step {done} of {all_steps}; try '
                'fewer or smaller pictures, or tune_prompts on the command line.'
            )

    def go_on(self) -> None:
        """Whether somebody still waits for it.

        Raises:
            Stopped: nobody does.
        """
        if self._cancelled or time.monotonic() - self._session.last_used > LONGEST_SILENCE:
            raise Stopped('Stopped.')

    def _run(self, tune: Callable[[Improvement], PromptBank]) -> None:
        try:
            bank = tune(self)
        except (Stopped, ValueError) as error:
            self._status |= dict(state='failed', message=str(error))
        except Exception as error:  # whatever it is, the page is told
            _log.exception('Tuning failed.')
            message = f'The server failed: {type(error).__name__}: {error}'
            self._status |= dict(state='failed', message=message)
        else:
            self.bank = bank
            self._status |= dict(_outcome(bank), state='done')


def _outcome(bank: PromptBank) -> dict:
    tuning = bank.provenance['tuning']
    losses = dict(tuning['held_out'])
    return dict(
        steps=tuning['steps'],
        tuned=tuning['tuned'],
        loss_before=losses.get(0),
        loss_after=losses.get(tuning['steps']),
    )
