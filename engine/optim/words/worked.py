"""Worked tasks: small tasks with good answers to what an optimizer's model is asked, shown to it before it is asked.

A very small model does what it has been shown, and hardly what it is asked. The tasks are everyday ones that nobody
would optimize a program for; an answer that repeats their words is dropped by `writing`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Worked:
    """An instruction with pairs of what goes in and comes out, on a line each, and the same instruction in other words.

    `answers` are all there are, where they are closed. `mistakes` are pairs that it led to with what would have been
    right, `reason` says why, and `better` mends it.
    """

    pairs: str
    instruction: str
    answers: str = ""
    reworded: str = ""
    mistakes: str = ""
    reason: str = ""
    better: str = ""


PLURAL = Worked(
    pairs="Word: cat -> Answer: cats\nWord: box -> Answer: boxes\nWord: city -> Answer: cities",
    instruction="Write the plural of the word.",
    reworded="Give the word in its plural form.",
    mistakes="Word: child -> Answer: childs (right: children)\nWord: foot -> Answer: foots (right: feet)",
    reason="The instruction does not say that some plurals are irregular.",
    better="Write the plural of the word. Some words have an irregular plural.",
)
HOTEL = Worked(
    pairs="Review: The room was dirty and loud. -> Answer: bad\nReview: We will come again! -> Answer: good\n"
    "Review: I want my money back. -> Answer: bad",
    instruction="Say whether the guest liked the hotel: good or bad.",
    answers="good, bad",
    reworded="Decide from the review if the guest was happy with the hotel, and answer good or bad.",
    mistakes="Review: I have seen better rooms. -> Answer: good (right: bad)\n"
    "Review: It was not bad at all. -> Answer: bad (right: good)",
    reason="The instruction does not say that single words can mislead.",
    better="Say whether the guest liked the hotel: good or bad. Look at the whole review and not at single words.",
)
COUNTRY = Worked(
    pairs="City: Paris -> Answer: France\nCity: Cairo -> Answer: Egypt\nCity: Lima -> Answer: Peru",
    instruction="Name the country where the city lies.",
    reworded="Which country does the city belong to? Answer with its name.",
    mistakes="City: Lima -> Answer: Lima is the capital of Peru. (right: Peru)",
    reason="The instruction does not say how long the answer should be.",
    better="Name the country where the city lies. Answer with the name alone.",
)
PAST = Worked(
    pairs="Sentence: She walks home. -> Answer: She walked home.\nSentence: They eat bread. -> Answer: They ate bread.",
    instruction="Rewrite the sentence in the past tense.",
)
SUM = Worked(
    pairs="Numbers: 3 5 -> Answer: 8\nNumbers: 10 2 -> Answer: 12\nNumbers: 7 7 -> Answer: 14",
    instruction="Add the two numbers up.",
)
SUBJECT = Worked(
    pairs="Text: Our team won the cup. -> Answer: sports\nText: The minister resigned. -> Answer: politics\n"
    "Text: Shares fell again. -> Answer: money",
    instruction="Name the subject of the text: sports, politics or money.",
    answers="sports, politics, money",
)
ANIMAL = Worked(
    pairs="Animal: whale -> Answer: water\nAnimal: eagle -> Answer: air\nAnimal: fox -> Answer: land",
    instruction="Say where the animal lives: in water, in the air or on land.",
    answers="water, air, land",
)

OPEN = (PLURAL, PAST, COUNTRY, SUM)
CLOSED = (SUBJECT, ANIMAL, HOTEL)
MENDED = (PLURAL, HOTEL, COUNTRY)
