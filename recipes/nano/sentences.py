"""Sentences of nano's domain: a seeded grammar of spoken commands, numbers, dates, times, prices and digit strings."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()
PEOPLE = "anna ben clara david emma frank grace henry ivy jack laura martin nina oscar paul rachel sam tom".split()
RELATIVES = ["mum", "dad", "my brother", "my sister", "the doctor", "the office", "my boss"]
ROOMS = ["kitchen", "bedroom", "bathroom", "living room", "garage", "hall", "garden", "office", "basement", "attic"]
COLOURS = "red green blue yellow white orange purple pink".split()
MUSIC = ["jazz", "rock", "classical music", "some blues", "my favourite songs", "the news", "a podcast", "folk music"]
CITIES = "london paris berlin rome madrid boston chicago oslo tokyo sydney dublin vienna".split()
PLACES = ["home", "work", "the airport", "the station", "the hospital", "the museum", "the library", "the supermarket"]
FOODS = "milk bread butter cheese apples bananas eggs rice sugar coffee tea salt tomatoes potatoes onions fish".split()
DEVICES = ["light", "lamp", "heater", "fan", "television", "radio", "oven", "coffee machine", "door lock"]
ACTIVITIES = ["take the medicine", "water the plants", "feed the cat", "walk the dog", "pay the rent", "buy flowers"]
EVENTS = ["meeting", "lunch", "dinner", "dentist", "party", "concert", "interview", "birthday"]
RANKS = "ace two three four five six seven eight nine ten jack queen king".split()
SUITS = "clubs diamonds hearts spades".split()
ALPHABET = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey yankee zulu"
).split()
DIRECTIONS = "north south east west".split()

TEST_SHARE, VALIDATION_SHARE = 0.04, 0.03
MIN_HELD_OUT_WORDS = 3  # shorter sentences are too few to hold any out: they belong to training

Rule = Callable[[random.Random], str]


def number_words(n: int) -> str:
    """The cardinal 0 ≤ n < 10,000 in words."""
    if n < 10:
        return DIGITS[n]
    if n < 20:
        return TEENS[n - 10]
    if n < 100:
        return TENS[n // 10 - 2] + (" " + DIGITS[n % 10] if n % 10 else "")
    high, unit, rest = (n // 100, "hundred", n % 100) if n < 1000 else (n // 1000, "thousand", n % 1000)
    joint = " and " if 0 < rest < 100 and n % 3 else " "  # both ways of saying it, fixed for a number
    return f"{number_words(high)} {unit}" + (joint + number_words(rest) if rest else "")


def ordinal_words(n: int) -> str:
    """The ordinal 1 ≤ n < 100 in words."""
    if n <= 20:
        return ORDINALS[n - 1]
    tens = TENS[n // 10 - 2]
    return f"{tens} {ORDINALS[n % 10 - 1]}" if n % 10 else tens[:-1] + "ieth"


def digit_string(rng: random.Random, low: int = 1, high: int = 10) -> str:
    """Between `low` and `high` digits, some as "oh" or "double"."""
    zero = rng.choice(["zero", "zero", "oh"])
    doubles = rng.random() < 0.25
    words: list[str] = []
    remaining = rng.randint(low, high)
    while remaining:
        digit = rng.choice(DIGITS)
        digit = zero if digit == "zero" else digit
        doubled = doubles and remaining >= 2 and rng.random() < 0.3
        words.append(f"double {digit}" if doubled else digit)
        remaining -= 2 if doubled else 1
    return " ".join(words)


def cardinal(rng: random.Random) -> str:
    """A cardinal with about the same share for each size."""
    return number_words(rng.randrange(rng.choice([20, 100, 100, 1000, 1000, 10_000])))


def year(rng: random.Random) -> str:
    """A year from 1800 to 2049 as people say it."""
    n = rng.randint(1800, 2049)
    if 2000 <= n < 2010:
        return "two thousand" + (f" and {DIGITS[n - 2000]}" if n > 2000 else "")
    century, rest = number_words(n // 100), n % 100
    if rest == 0:
        return f"{century} hundred"
    return f"{century} oh {DIGITS[rest]}" if rest < 10 else f"{century} {number_words(rest)}"


def date(rng: random.Random) -> str:
    """A date, with or without weekday and year."""
    day, month = ordinal_words(rng.randint(1, 31)), rng.choice(MONTHS)
    text = rng.choice([f"{month} {day}", f"the {day} of {month}", f"{month} the {day}"])
    if rng.random() < 0.3:
        text = f"{rng.choice(WEEKDAYS)} {text}"
    return f"{text} {year(rng)}" if rng.random() < 0.4 else text


def clock(rng: random.Random) -> str:
    """A time of day."""
    hour, minute = number_words(rng.randint(1, 12)), rng.randint(1, 59)
    minute_words = f"oh {DIGITS[minute]}" if minute < 10 else number_words(minute)
    half = rng.choice(["", "", " a m", " p m", " in the morning", " in the evening", " in the afternoon"])
    return rng.choice(
        [
            f"{hour} o'clock{half.replace(' a m', '').replace(' p m', '')}",
            f"{hour} {minute_words}{half}",
            f"half past {hour}",
            f"{rng.choice(['quarter', 'ten minutes', 'twenty', 'five'])} {rng.choice(['past', 'to'])} {hour}",
            rng.choice(["noon", "midnight", f"{hour}{half}"]),
        ]
    )


def price(rng: random.Random) -> str:
    """An amount of money."""
    whole, cents = rng.randint(1, 300), rng.randint(1, 99)
    unit, small = rng.choice([("dollar", "cent"), ("pound", "penny"), ("euro", "cent")])
    units = unit if whole == 1 else unit + "s"
    smalls = small if cents == 1 else {"cent": "cents", "penny": "pence"}[small]
    if rng.random() < 0.35:
        return f"{number_words(whole)} {units}"
    if rng.random() < 0.2:
        return f"{number_words(cents)} {smalls}"
    joint = rng.choice([" ", " and "])
    return f"{number_words(whole)} {units}{joint}{number_words(cents)} {smalls}"


def duration(rng: random.Random) -> str:
    """A span of time."""
    n = rng.randint(1, 59)
    unit = rng.choice(["second", "minute", "minute", "hour"])
    text = f"{number_words(n)} {unit}" + ("s" if n > 1 else "")
    return f"{text} and {number_words(rng.randint(2, 59))} seconds" if unit == "minute" and rng.random() < 0.2 else text


def person(rng: random.Random) -> str:
    """Somebody to call."""
    return rng.choice(PEOPLE) if rng.random() < 0.75 else rng.choice(RELATIVES)


def digits_command(rng: random.Random) -> str:
    """Digits in a sentence."""
    digits = digit_string(rng, 3, 8)
    carriers = [
        "call {}", "dial {}", "my pin is {}", "the code is {}", "my number is {}", "enter {}", "room {}", "flight {}",
        "the order number is {}", "extension {}", "account {}", "the password is {}", "bus {}", "type {} please",
    ]  # fmt: skip
    return rng.choice(carriers).format(digits)


def home(rng: random.Random) -> str:
    """A command for the house."""
    room, device, state = rng.choice(ROOMS), rng.choice(DEVICES), rng.choice(["on", "off"])
    return rng.choice(
        [
            f"turn {state} the {device} in the {room}",
            f"switch the {room} {device} {state}",
            f"turn the {device} {state}",
            f"set the {room} temperature to {number_words(rng.randint(5, 30))} degrees",
            f"make the {room} lights {rng.choice(COLOURS)}",
            f"dim the lights in the {room} to {number_words(rng.randint(1, 100))} percent",
            f"{rng.choice(['open', 'close'])} the {room} {rng.choice(['window', 'door', 'curtains', 'blinds'])}",
            f"{rng.choice(['lock', 'unlock'])} the {rng.choice(['front', 'back'])} door",
            f"is the {room} {device} {state}",
        ]
    )


def timer(rng: random.Random) -> str:
    """A timer or an alarm."""
    day = rng.choice(["tomorrow", "today", "tonight", *(f"on {w}" for w in WEEKDAYS), "every day", "every weekday"])
    return rng.choice(
        [
            f"set a timer for {duration(rng)}",
            f"set an alarm for {clock(rng)}",
            f"wake me up at {clock(rng)} {day}",
            f"remind me to {rng.choice(ACTIVITIES)} {day}",
            f"remind me in {duration(rng)} to {rng.choice(ACTIVITIES)}",
            f"cancel the {rng.choice(['timer', 'alarm', 'reminder'])} for {clock(rng)}",
            f"how much time is left on the {ordinal_words(rng.randint(1, 5))} timer",
            f"add {duration(rng)} to the timer",
            f"{rng.choice(['stop', 'pause', 'start', 'repeat'])} the {rng.choice(['timer', 'alarm', 'clock'])}",
        ]
    )


def media(rng: random.Random) -> str:
    """Music and volume."""
    room = rng.choice(ROOMS)
    return rng.choice(
        [
            f"play {rng.choice(MUSIC)}",
            f"play {rng.choice(MUSIC)} in the {room}",
            f"{rng.choice(['pause', 'stop', 'resume'])} the music in the {room}",
            f"set the volume to {number_words(rng.randint(0, 100))}",
            f"turn the volume {rng.choice(['up', 'down'])} by {number_words(rng.randint(1, 50))} percent",
            f"skip {number_words(rng.randint(2, 9))} songs",
            f"play the {rng.choice(['next', 'last', 'previous', ordinal_words(rng.randint(1, 30))])} song again",
            f"play channel {number_words(rng.randint(1, 99))} on the radio",
            f"play track {number_words(rng.randint(1, 99))}",
        ]
    )


def communication(rng: random.Random) -> str:
    """Calls, messages and the calendar."""
    who = person(rng)
    return rng.choice(
        [
            f"call {who}",
            f"call {who} {rng.choice(['at home', 'at work', 'on the mobile', 'again'])}",
            f"send a message to {who}",
            f"tell {who} {rng.choice(['i am late', 'i will be there', 'thank you', 'happy birthday', 'good night'])}",
            f"tell {who} i will be there at {clock(rng)}",
            f"meet {who} on {date(rng)}",
            f"{rng.choice(EVENTS)} with {who} at {clock(rng)} on {rng.choice(WEEKDAYS)}",
            f"move the {rng.choice(EVENTS)} to {date(rng)}",
            f"when is the {rng.choice(EVENTS)} with {who}",
            f"read the {rng.choice(['last', 'first', 'new'])} message from {who}",
        ]
    )


def travel(rng: random.Random) -> str:
    """Navigation and weather."""
    city, other = rng.sample(CITIES, 2)
    day = rng.choice(["today", "tomorrow", "on " + rng.choice(WEEKDAYS), "this weekend", "next week"])
    return rng.choice(
        [
            f"navigate to {rng.choice(PLACES)}",
            f"how far is it from {city} to {other}",
            f"how long does it take to {rng.choice(PLACES)} by {rng.choice(['car', 'train', 'bike', 'bus'])}",
            f"take me to {number_words(rng.randint(1, 200))} {rng.choice(['park', 'church', 'station'])} street",
            f"what is the weather in {city} {day}",
            f"will it {rng.choice(['rain', 'snow', 'be sunny', 'be cold', 'be windy'])} in {city} {day}",
            f"the temperature in {city} is {number_words(rng.randint(0, 40))} degrees",
            f"the train to {city} leaves at {clock(rng)} from platform {number_words(rng.randint(1, 24))}",
            f"book a flight from {city} to {other} on {date(rng)}",
        ]
    )


def robot(rng: random.Random) -> str:
    """Moves of a robot, chess-board style coordinates and radio spelling."""
    n = rng.randint(1, 100)
    unit = rng.choice(["meter", "step", "foot", "mile"])
    units = unit if n == 1 else {"foot": "feet"}.get(unit, unit + "s")
    way = rng.choice(["forward", "back", "backward", "left", "right", "up", "down"])
    return rng.choice(
        [
            f"go {way} {number_words(n)} {units}",
            f"move {number_words(n)} {units} {way}",
            f"turn {rng.choice(['left', 'right'])} {number_words(n)} degrees",
            f"turn {rng.choice(['left', 'right', 'around'])} and {rng.choice(['stop', 'wait', 'come back'])}",
            f"go {rng.choice(DIRECTIONS)} for {duration(rng)}",
            f"pick up the {rng.choice(COLOURS)} {rng.choice(['ball', 'box', 'cup', 'book'])}",
            f"put the {rng.choice(['ball', 'box', 'cup', 'book'])} {rng.choice(['on', 'under', 'behind'])} the table",
            " ".join(rng.sample(ALPHABET, rng.randint(2, 6))),
            f"{rng.choice(ALPHABET)} {rng.choice(ALPHABET)} {digit_string(rng, 1, 4)}",
        ]
    )


def cards(rng: random.Random) -> str:
    """Playing cards."""
    return " ".join(f"{rng.choice(RANKS)} of {rng.choice(SUITS)}" for _ in range(rng.randint(1, 4)))


def shopping(rng: random.Random) -> str:
    """Lists and small sums."""
    foods = rng.sample(FOODS, rng.randint(1, 4))
    listed = f"{' '.join(foods[:-1])} and {foods[-1]}" if len(foods) > 1 else foods[0]
    a, b = number_words(rng.randint(2, 99)), number_words(rng.randint(2, 99))
    return rng.choice(
        [
            f"add {listed} to the shopping list",
            f"remove {listed} from my list",
            f"buy {number_words(rng.randint(2, 20))} {rng.choice(['apples', 'bananas', 'eggs', 'tomatoes', 'onions'])}",
            f"how much is {a} {rng.choice(['plus', 'minus', 'times', 'divided by'])} {b}",
            f"the {rng.choice(FOODS)} is {price(rng)}",
            f"pay {person(rng)} {price(rng)}",
            f"what is {number_words(rng.randint(1, 100))} percent of {cardinal(rng)}",
        ]
    )


def small_talk(rng: random.Random) -> str:
    """Short words of a dialogue."""
    words = ["yes", "no", "stop", "go", "help", "cancel", "repeat", "okay", "hello", "thank you", "good morning"]
    words += ["good night", "yes please", "no thank you", "go back", "what time is it", "what day is it today"]
    return rng.choice([*words, *DIGITS, *WEEKDAYS, *MONTHS, *COLOURS])


def mixed_words(rng: random.Random) -> str:
    """Words in no order: the language model must listen rather than guess."""
    return " ".join(rng.choice(MIXABLE) for _ in range(rng.randint(1, 7)))


RULES: list[tuple[Rule, int]] = [
    (digit_string, 22), (digits_command, 8), (cardinal, 7), (lambda rng: f"number {cardinal(rng)}", 1), (date, 7),
    (year, 2), (clock, 6), (price, 7), (duration, 2), (home, 8), (timer, 6), (media, 5), (communication, 6),
    (travel, 6), (robot, 7), (cards, 3), (shopping, 5), (small_talk, 3), (mixed_words, 10),
]  # fmt: skip


def draw(rng: random.Random) -> str:
    """One sentence of any split."""
    rules, weights = zip(*RULES, strict=True)
    return rng.choices(rules, weights)[0](rng)


def _collect_vocabulary() -> list[str]:
    """Every word that the rules other than `mixed_words` can say, sorted."""
    rng = random.Random(0)
    rules = [rule for rule, _ in RULES if rule is not mixed_words]
    return sorted({word for rule in rules for _ in range(1500) for word in rule(rng).split()})


VOCABULARY: list[str] = _collect_vocabulary()
HOMOPHONES = {"to", "for", "by", "buy", "read", "a", "m", "p"}  # without a context nobody can tell these from others
MIXABLE = [word for word in VOCABULARY if word not in HOMOPHONES]


def split_of(sentence: str) -> str:
    """The one split ("train", "validation", "test") that a sentence belongs to, by its hash."""
    if len(sentence.split()) < MIN_HELD_OUT_WORDS:
        return "train"
    share = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") / 2**64
    if share < TEST_SHARE:
        return "test"
    return "validation" if share < TEST_SHARE + VALIDATION_SHARE else "train"


def sentences(split: str, seed: int = 0, rule: Rule = draw) -> Iterator[str]:
    """Endless sentences of one split, the same for the same seed."""
    rng = random.Random(f"{split}/{seed}")
    while True:
        sentence = rule(rng)
        if split_of(sentence) == split:
            yield sentence
