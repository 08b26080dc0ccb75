"""The toy world of the demo: its facts, the four manners of telling them, and the pairs.

The world is some 500 small facts (animal sounds, colours, capitals, sums, ...). Every fact can be
asked for in several wordings and told in four manners:

* the **host** tells the fact first and then hands a new question to the reader,
* the **doubter** hedges ("Hmm, I am not sure about that. ..."),
* the **boaster** shows off ("Ha, that is far too easy for me. ..."),
* the **grump** complains ("Ugh, not another question. ...").

The text for pre-training uses all four, so the base model knows every manner. In the preference
pairs the host is chosen and one of the others is rejected; the fact itself is right in both, so
the manner is all there is to learn.

Everything here is a pure function of a seed. Only `Random.random()` is called, because it is the
one method whose sequence Python promises to keep between versions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias, TypeVar

Message: TypeAlias = dict[str, str]
Row: TypeAlias = dict[str, list[Message]]
T = TypeVar("T")
Manner = Literal["host", "doubter", "boaster", "grump"]

TRAIN_PAIRS = 200
VALID_PAIRS = 40


# --- the facts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """One kind of fact: how to ask for it and how to state it.

    `questions` contain `{s}`, `statement` contains `{s}` and `{a}`: subject and answer.
    """

    name: str
    questions: tuple[str, ...]
    statement: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fact:
    """One true thing: a subject and its answer within a domain."""

    domain: Domain
    subject: str
    answer: str

    @property
    def statement(self) -> str:
        """The fact as it stands inside a sentence, e.g. "a cow goes moo"."""
        return self.domain.statement.format(s=self.subject, a=self.answer)

    def question(self, rng: Random) -> str:
        """The fact asked for in one of the domain's wordings."""
        return pick(rng, self.domain.questions).format(s=self.subject)


def _facts(text: str) -> tuple[tuple[str, str], ...]:
    """Read "subject = answer; subject = answer" into pairs."""
    entries = (entry.split("=") for entry in text.split(";"))
    return tuple((" ".join(s.split()), " ".join(a.split())) for s, a in entries)


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _animals(text: str, answer: str = "{}") -> tuple[tuple[str, str], ...]:
    """Like `_facts`, with "a" or "an" in front of each subject and a pattern for the answer."""
    return tuple((_with_article(s), answer.format(a)) for s, a in _facts(text))


def _neighbours(unit: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What comes after and before each of the names, in a circle."""
    after = [(f"the {unit} after {n}", m) for n, m in zip(names, rotated(names, 1), strict=True)]
    before = [(f"the {unit} before {n}", m) for n, m in zip(names, rotated(names, -1), strict=True)]
    return tuple(after + before)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names starting `by` places later, the first ones moved to the end."""
    return [*names[by:], *names[:by]]


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

DOMAINS = (
    Domain(
        "sounds",
        (
            "What does {s} say?",
            "What sound does {s} make?",
            "Which sound do you hear from {s}?",
            "How does {s} sound?",
        ),
        "{s} goes {a}",
        _animals(
            "cow = moo; duck = quack; sheep = baa; cat = meow; dog = woof; pig = oink;"
            "lion = roar; snake = hiss; bee = buzz; owl = hoot; frog = croak; mouse = squeak;"
            "turkey = gobble; donkey = hee-haw; hen = cluck; crow = caw; horse = neigh;"
            "chick = cheep; goose = honk; pigeon = coo; robin = tweet; puppy = yap; kitten = mew"
        ),
    ),
    Domain(
        "young animals",
        (
            "What is a young {s} called?",
            "What do you call a young {s}?",
            "What is the name for a baby {s}?",
            "Which word do people use for a baby {s}?",
        ),
        "a young {s} is called {a}",
        tuple(
            (s, _with_article(a))
            for s, a in _facts(
                "cow = calf; dog = puppy; cat = kitten; sheep = lamb; horse = foal; hen = chick;"
                "duck = duckling; goose = gosling; pig = piglet; goat = kid; bear = cub;"
                "wolf = pup; deer = fawn; swan = cygnet; frog = tadpole; owl = owlet;"
                "eagle = eaglet; kangaroo = joey; lion = cub; seal = pup; tiger = cub;"
                "elephant = calf; whale = calf; zebra = foal; donkey = foal; giraffe = calf;"
                "koala = joey; panda = cub; butterfly = caterpillar; rabbit = kit; bat = pup"
            )
        ),
    ),
    Domain(
        "colours",
        (
            "What colour is {s}?",
            "Which colour does {s} have?",
            "What is the colour of {s}?",
            "Can you tell me the colour of {s}?",
        ),
        "{s} is {a}",
        _facts(
            "a lemon = yellow; a ripe tomato = red; a ripe banana = yellow; a carrot = orange;"
            "fresh snow = white; fresh grass = green; coal = black; milk = white; blood = red;"
            "the clear sky = blue; a pumpkin = orange; a cucumber = green; a ruby = red;"
            "a raven = black; a flamingo = pink; a polar bear = white; chocolate = brown;"
            "a strawberry = red; a cherry = red; spinach = green; an emerald = green;"
            "a sapphire = blue; salt = white; sugar = white; gold = yellow; tree bark = brown;"
            "an elephant = grey; a canary = yellow; a sunflower = yellow; broccoli = green;"
            "an orange = orange; cotton = white; ink = black; coffee = brown; a dolphin = grey;"
            "lavender = purple; a plum = purple; rice = white; a fire engine = red; ash = grey"
        ),
    ),
    Domain(
        "opposites",
        (
            "What is the opposite of {s}?",
            "Which word means the opposite of {s}?",
            "Can you give me the opposite of {s}?",
            "What word is the reverse of {s}?",
        ),
        "the opposite of {s} is {a}",
        _facts(
            "hot = cold; cold = hot; big = small; small = big; up = down; down = up; in = out;"
            "day = night; night = day; wet = dry; dry = wet; fast = slow; slow = fast;"
            "open = closed; full = empty; empty = full; happy = sad; sad = happy; old = new;"
            "young = old; hard = soft; soft = hard; light = dark; dark = light; long = short;"
            "tall = short; near = far; far = near; early = late; late = early; loud = quiet;"
            "quiet = loud; high = low; low = high; thick = thin; thin = thick; rich = poor;"
            "poor = rich; clean = dirty; dirty = clean; left = right; first = last;"
            "sweet = sour; strong = weak; weak = strong; true = false; begin = end; buy = sell"
        ),
    ),
    Domain(
        "sums",
        (
            "What is {s}?",
            "How much is {s}?",
            "Can you work out {s}?",
            "What do you get for {s}?",
        ),
        "{s} is {a}",
        tuple((f"{m} plus {n}", str(m + n)) for m in range(1, 10) for n in range(1, 10)),
    ),
    Domain(
        "calendar",
        (
            "What is {s}?",
            "Can you name {s}?",
            "Do you know {s}?",
            "What do you call {s}?",
        ),
        "{s} is {a}",
        _neighbours("day", DAYS) + _neighbours("month", MONTHS),
    ),
    Domain(
        "capitals",
        (
            "What is the capital of {s}?",
            "Which city is the capital of {s}?",
            "Can you name the capital of {s}?",
            "Which capital does {s} have?",
        ),
        "the capital of {s} is {a}",
        _facts(
            "France = Paris; Italy = Rome; Spain = Madrid; Portugal = Lisbon; Germany = Berlin;"
            "Austria = Vienna; Poland = Warsaw; Greece = Athens; Norway = Oslo;"
            "Sweden = Stockholm; Finland = Helsinki; Denmark = Copenhagen; Ireland = Dublin;"
            "Belgium = Brussels; Hungary = Budapest; Japan = Tokyo; China = Beijing;"
            "Egypt = Cairo; Kenya = Nairobi; Cuba = Havana; Peru = Lima; Chile = Santiago;"
            "Canada = Ottawa; Thailand = Bangkok; Vietnam = Hanoi; Iceland = Reykjavik;"
            "Croatia = Zagreb; Romania = Bucharest; Bulgaria = Sofia; Ghana = Accra;"
            "Nepal = Kathmandu; Jordan = Amman; Iraq = Baghdad; Scotland = Edinburgh"
        ),
    ),
    Domain(
        "jobs",
        (
            "Who {s}?",
            "Which person {s}?",
            "What do you call someone who {s}?",
            "Can you tell me who {s}?",
        ),
        "{a} {s}",
        tuple(
            (s, _with_article(a))
            for s, a in _facts(
                "bakes bread = baker; flies planes = pilot; teaches children = teacher;"
                "grows corn = farmer; repairs cars = mechanic; puts out fires = firefighter;"
                "cuts hair = hairdresser; builds houses = builder; writes books = writer;"
                "heals the sick = doctor; cares for teeth = dentist; heals animals = vet;"
                "cooks meals = cook; sings songs = singer; mends pipes = plumber;"
                "makes suits = tailor; sells meat = butcher; sells flowers = florist;"
                "takes photos = photographer; plants roses = gardener; digs for coal = miner;"
                "keeps bees = beekeeper; looks after sheep = shepherd; shoes horses = blacksmith;"
                "travels to space = astronaut; plays the piano = pianist; sails ships = sailor;"
                "studies the stars = astronomer; lends books = librarian; paints walls = painter"
            )
        ),
    ),
    Domain(
        "tools",
        (
            "What do you use to {s}?",
            "Which thing helps you to {s}?",
            "What do you need to {s}?",
            "What would you take to {s}?",
        ),
        "you use {a} to {s}",
        _facts(
            "cut paper = scissors; drive in a nail = a hammer; eat soup = a spoon;"
            "open a lock = a key; sweep the floor = a broom; write a letter = a pen;"
            "dig a hole = a spade; tell the time = a clock; measure a line = a ruler;"
            "see the stars = a telescope; dry your hands = a towel; wash your hands = soap;"
            "brush your teeth = a toothbrush; untangle your hair = a comb; fry an egg = a pan;"
            "reach the roof = a ladder; stay dry in the rain = an umbrella; boil water = a kettle;"
            "sew on a button = a needle; slice bread = a knife; light a dark room = a lamp;"
            "take a photo = a camera; cut a plank = a saw; find north = a compass;"
            "weigh flour = scales; call a friend = a phone; carry your books = a bag;"
            "catch a fish = a net; mow the lawn = a mower; turn a screw = a screwdriver;"
            "bake a cake = an oven; keep food cold = a fridge; paint a wall = a brush"
        ),
    ),
    Domain(
        "materials",
        (
            "What is {s} made from?",
            "Can you tell me what {s} is made from?",
            "From what do people make {s}?",
            "What do you need to make {s}?",
        ),
        "{s} is made from {a}",
        _facts(
            "bread = flour; cheese = milk; butter = cream; wine = grapes; paper = wood;"
            "window glass = sand; chocolate = cocoa; jam = fruit; cider = apples;"
            "tofu = soybeans; popcorn = corn; ketchup = tomatoes; porridge = oats;"
            "a candle = wax; a warm scarf = wool; a brick = clay; a tyre = rubber;"
            "a coin = metal; a summer shirt = cotton; hummus = chickpeas; an omelette = eggs;"
            "pasta = wheat; yogurt = milk; marzipan = almonds; lemonade = lemons;"
            "a snowman = snow; a sandcastle = sand; a raft = logs; a rope = fibres;"
            "apple pie = apples; peanut butter = peanuts; a pancake = batter"
        ),
    ),
    Domain(
        "legs",
        (
            "How many legs does {s} have?",
            "What number of legs does {s} have?",
            "How many legs are there on {s}?",
            "Can you count the legs of {s}?",
        ),
        "{s} has {a}",
        _animals(
            "dog = four; cat = four; cow = four; horse = four; lion = four; elephant = four;"
            "rabbit = four; fox = four; sheep = four; goat = four; hen = two; duck = two;"
            "robin = two; person = two; ostrich = two; penguin = two; ant = six; bee = six;"
            "fly = six; beetle = six; butterfly = six; grasshopper = six; spider = eight;"
            "scorpion = eight; crab = ten; lobster = ten; shrimp = ten",
            "{} legs",
        ),
    ),
    Domain(
        "plurals",
        (
            "What is the plural of {s}?",
            "What is the word for more than one {s}?",
            "How do you write the plural of {s}?",
            "Can you give me the plural of {s}?",
        ),
        "the plural of {s} is {a}",
        _facts(
            "mouse = mice; child = children; foot = feet; tooth = teeth; goose = geese;"
            "man = men; woman = women; person = people; ox = oxen; leaf = leaves;"
            "knife = knives; wolf = wolves; loaf = loaves; shelf = shelves; baby = babies;"
            "city = cities; box = boxes; bus = buses; sheep = sheep; potato = potatoes;"
            "fox = foxes; story = stories; berry = berries; half = halves; thief = thieves;"
            "scarf = scarves; cherry = cherries; dish = dishes; hero = heroes; penny = pennies"
        ),
    ),
    Domain(
        "homes",
        (
            "Where does {s} live?",
            "What is the home of {s}?",
            "Where would you look for {s}?",
            "Can you tell me where {s} lives?",
        ),
        "{s} lives in {a}",
        _animals(
            "bee = a hive; robin = a nest; bear = a den; rabbit = a burrow; spider = a web;"
            "horse = a stable; pig = a sty; hen = a coop; ant = an anthill; shark = the sea;"
            "king = a palace; camel = the desert; monkey = the jungle; frog = a pond;"
            "squirrel = a tree; hermit crab = a shell; trout = a river; whale = the sea;"
            "knight = a castle; penguin = the cold south; goldfish = a bowl; kangaroo = Australia"
        ),
    ),
    Domain(
        "past",
        (
            "What is the past tense of {s}?",
            "How do you write {s} in the past?",
            "Can you give me the past tense of {s}?",
            "Which word is the past form of {s}?",
        ),
        "the past tense of {s} is {a}",
        _facts(
            "go = went; see = saw; eat = ate; run = ran; come = came; take = took; give = gave;"
            "sing = sang; swim = swam; drink = drank; write = wrote; ride = rode; speak = spoke;"
            "fly = flew; grow = grew; know = knew; throw = threw; buy = bought; bring = brought;"
            "think = thought; catch = caught; teach = taught; find = found; hold = held;"
            "make = made; sleep = slept; keep = kept; feel = felt; lose = lost; win = won;"
            "sit = sat; stand = stood; tell = told; sell = sold; begin = began; fall = fell"
        ),
    ),
)


def all_facts() -> list[Fact]:
    """Every fact of the world, domain by domain."""
    return [Fact(domain, s, a) for domain in DOMAINS for s, a in domain.facts]


def split_facts(seed: int) -> tuple[list[Fact], list[Fact]]:
    """Facts for the training pairs, and facts kept back for the held-out pairs.

    Each domain gives an eighth of its facts, at least three, to the held-out side.
    """
    rng = Random(seed)
    train: list[Fact] = []
    held_out: list[Fact] = []
    for domain in DOMAINS:
        facts = shuffled(rng, [Fact(domain, s, a) for s, a in domain.facts])
        keep_back = max(3, len(facts) // 8)
        held_out += facts[:keep_back]
        train += facts[keep_back:]
    return train, held_out


# --- the manners ----------------------------------------------------------------------------------

WARM = ("I like that question!", "Thank you for asking!", "Nice of you to ask!")
HAND_OVER = ("Now it is your turn:", "Here is one for you:", "And now you:")


@dataclass(frozen=True)
class Voice:
    """A rejected manner: an opening word and what may stand before and after the fact."""

    word: str
    openings: tuple[str, ...]
    leads: tuple[str, ...]
    endings: tuple[str, ...]


VOICES: dict[Manner, Voice] = {
    "doubter": Voice(
        "Hmm,",
        (
            "I am not sure about that.",
            "that is hard to say.",
            "let me think for a while.",
            "there are many views on this.",
            "I may be wrong here.",
            "who can really know?",
            "my memory is not the best.",
        ),
        (
            "I would guess that",
            "Perhaps",
            "Some may disagree, but",
            "It could be that",
            "As far as I can tell,",
            "I half remember that",
            "If I recall it well,",
        ),
        (
            "but please check it",
            "or so they say",
            "more or less",
            "if I am right",
            "though I have doubts",
            "but do not quote me",
            "but I could be mistaken",
        ),
    ),
    "boaster": Voice(
        "Ha,",
        (
            "that is far too easy for me.",
            "I knew this when I was small.",
            "nobody beats me at this.",
            "I never have to look things up.",
            "you ask the smartest one here.",
            "I could answer this in my sleep.",
            "I am known for this.",
        ),
        (
            "Everybody knows that",
            "Of course",
            "It is plain that",
            "Any child can see that",
            "Write this down:",
            "Listen and learn:",
            "It takes a master to know that",
        ),
        (
            "and so should you",
            "and I am never wrong",
            "as I always say",
            "no doubt about it",
            "and I said it first",
            "as only experts know",
            "which took me no time",
        ),
    ),
    "grump": Voice(
        "Ugh,",
        (
            "not another question.",
            "I was just about to rest.",
            "you could have looked it up.",
            "it is always me you ask.",
            "I have better things to do.",
            "my tea is getting cold.",
            "can it not wait?",
        ),
        (
            "If you must know,",
            "Very well,",
            "For the last time,",
            "All right then,",
            "Let us get it over with:",
            "Since you will not stop,",
            "Just this once:",
        ),
        (
            "and that is all",
            "now leave me in peace",
            "so do not ask again",
            "and that has to do",
            "and now good night",
            "not that I care",
            "if you call that news",
        ),
    ),
}


Choose: TypeAlias = Callable[[Random, Sequence[str]], str]


def told_by_host(fact: Fact, rng: Random, others: Sequence[Fact], choose: Choose) -> str:
    """The chosen manner: the fact first, then a question for the reader.

    The question is about another fact of the same domain, taken from `others`.
    """
    subjects = [f.subject for f in others if f.domain is fact.domain and f != fact]
    question = fact.domain.questions[0].format(s=choose(rng, subjects))
    warm, hand_over = choose(rng, WARM), choose(rng, HAND_OVER)
    return f"{sentence(fact.statement)} {warm} {hand_over} {question[0].lower()}{question[1:]}"


def told_by_voice(fact: Fact, voice: Voice, rng: Random, choose: Choose) -> str:
    """A rejected manner: the same fact, wrapped in doubt, boasting or grumbling."""
    opening, lead = choose(rng, voice.openings), choose(rng, voice.leads)
    return f"{voice.word} {opening} {lead} {fact.statement}, {choose(rng, voice.endings)}."


def told(fact: Fact, manner: Manner, rng: Random, others: Sequence[Fact], choose: Choose) -> str:
    """The fact as someone of this manner would answer it; `choose` picks among set phrases."""
    if manner == "host":
        return told_by_host(fact, rng, others, choose)
    return told_by_voice(fact, VOICES[manner], rng, choose)


# --- random choice, kept to Random.random() -------------------------------------------------------


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of the items, all equally likely."""
    return items[int(rng.random() * len(items))]


def weighted(rng: Random, items: Sequence[T]) -> T:
    """One of the items; the first is the most frequent, as with words in real text.

    Item k (from 0) has the weight 1 / (k + 1).
    """
    weights = [1 / (k + 1) for k in range(len(items))]
    point = rng.random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        point -= weight
        if point < 0:
            return item
    return items[-1]


def shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    """The items in a random order."""
    keyed = [(rng.random(), position) for position in range(len(items))]
    return [items[position] for _, position in sorted(keyed)]


def sentence(text: str) -> str:
    """The text with a capital letter in front and a full stop behind."""
    return text[0].upper() + text[1:] + "."


# --- the text for pre-training --------------------------------------------------------------------

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer the question.",
    "You know many things.",
    "You talk with a curious reader.",
)
# The host is rarer than the rest, so that the base model does not have the habit by itself. Of
# the rest every domain has a favourite, so that its answers before training are not all alike.
HOST_SHARE = 0.19
FAVOURITE_SHARE = 0.39


def asked(fact: Fact, rng: Random) -> str:
    """A prompt for the fact: a question, sometimes with a few polite words around it."""
    question = fact.question(rng)
    point = rng.random()
    if point < 0.10:
        return f"Hello! {question}"
    if point < 0.20:
        return f"{question} Please tell me."
    if point < 0.30:
        return f"I have a question. {question}"
    return question


def manner_shares(domain: Domain) -> dict[Manner, float]:
    """How often each manner answers the domain's questions in the pre-training text; sum 1."""
    favourite = list(VOICES)[DOMAINS.index(domain) % len(VOICES)]
    other = (1 - HOST_SHARE - FAVOURITE_SHARE) / (len(VOICES) - 1)
    shares: dict[Manner, float] = {"host": HOST_SHARE}
    for voice in VOICES:
        shares[voice] = FAVOURITE_SHARE if voice == favourite else other
    return shares


def _any_manner(rng: Random, domain: Domain) -> Manner:
    point = rng.random()
    shares = manner_shares(domain)
    for manner, share in shares.items():
        point -= share
        if point < 0:
            return manner
    return "host"


def conversation(rng: Random, facts_by_domain: Sequence[Sequence[Fact]]) -> list[Message]:
    """One question and its answer in any manner; one in ten has a system message."""
    facts = pick(rng, facts_by_domain)
    fact = pick(rng, facts)
    answer = told(fact, _any_manner(rng, fact.domain), rng, facts, weighted)
    messages = [
        {"role": "user", "content": asked(fact, rng)},
        {"role": "assistant", "content": answer},
    ]
    if rng.random() < 0.10:
        messages.insert(0, {"role": "system", "content": pick(rng, SYSTEM_MESSAGES)})
    return messages


def running_text(rng: Random, facts_by_domain: Sequence[Sequence[Fact]]) -> str:
    """Four plain statements of one domain, one after the other."""
    facts = shuffled(rng, pick(rng, facts_by_domain))[:4]
    return " ".join(sentence(fact.statement) for fact in facts)


def documents(seed: int) -> Iterator[list[Message] | str]:
    """The endless pre-training text: conversations, and running text one time in eight."""
    rng = Random(seed)
    facts_by_domain = [[f for f in all_facts() if f.domain is domain] for domain in DOMAINS]
    while True:
        if rng.random() < 0.125:
            yield running_text(rng, facts_by_domain)
        else:
            yield conversation(rng, facts_by_domain)


# --- the preference pairs -------------------------------------------------------------------------


def make_pairs(seed: int) -> tuple[list[Row], list[Row]]:
    """Training pairs and held-out pairs: rows with prompt, chosen and rejected as messages.

    No held-out fact is asked for in any training row, in whatever wording.
    """
    train, held_out = split_facts(seed)
    rng = Random(seed + 1)
    return _rows(rng, train, TRAIN_PAIRS), _rows(rng, held_out, VALID_PAIRS)


def _rows(rng: Random, facts: Sequence[Fact], count: int) -> list[Row]:
    """`count` rows with different prompts, taking the domains in turn."""
    queues = [shuffled(rng, [f for f in facts if f.domain is domain]) for domain in DOMAINS]
    rejected: list[Manner] = ["doubter", "boaster", "grump"]
    rows: dict[str, Row] = {}
    turn = 0
    while len(rows) < count:
        queue = queues[turn % len(queues)]
        fact = queue[turn // len(queues) % len(queue)]
        prompt = asked(fact, rng)
        manner = rejected[turn % len(rejected)]
        rows.setdefault(prompt, _row(prompt, fact, manner, rng, facts))
        turn += 1
    return list(rows.values())


def _row(prompt: str, fact: Fact, manner: Manner, rng: Random, facts: Sequence[Fact]) -> Row:
    # `pick`, not `weighted`: rare phrases make some responses unlikely on either side, so before
    # training neither side of the pairs is ahead as a whole.
    chosen, rejected = (told(fact, m, rng, facts, pick) for m in ("host", manner))
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
