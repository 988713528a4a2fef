"""Texts of our own writing for calibration, and others, held out of it, for measuring.

A little of everything the model is asked for: prose, talk, lists, sums, code, pages, Chinese.
"""

CALIBRATION_TEXTS: tuple[str, ...] = (
    "The lighthouse had been dark for eleven years when Marta bought it. The roof leaked, the "
    "stairs sang under every step, and gulls had taken the lantern room for their own. She spent "
    "the first winter on the ground floor with a stove and a radio, and learned the sea by its "
    "noises: the flat slap of a calm morning, the long breath before a storm, the rattle of "
    "pebbles drawn back by a falling tide. In March she climbed to the top for the first time, "
    "opened the shutters, and lit a lamp that nobody needed any more.",
    "Water boils when its vapour pressure equals the pressure of the air above it. At sea level "
    "that happens near 100 degrees Celsius; on a mountain of three thousand metres it happens at "
    "about 90, which is why beans take longer to cook there. A pressure cooker does the opposite: "
    "it keeps the steam in, the pressure rises, and the water stays liquid up to about 120 "
    "degrees. Food cooks faster because chemical reactions roughly double in speed for every ten "
    "degrees of warming.",
    "def merge_sorted(left, right):\n"
    '    """Return one sorted list with the items of two sorted lists."""\n'
    "    result = []\n"
    "    i = j = 0\n"
    "    while i < len(left) and j < len(right):\n"
    "        if left[i] <= right[j]:\n"
    "            result.append(left[i])\n"
    "            i += 1\n"
    "        else:\n"
    "            result.append(right[j])\n"
    "            j += 1\n"
    "    return result + left[i:] + right[j:]\n\n\n"
    "assert merge_sorted([1, 4, 9], [2, 3, 10]) == [1, 2, 3, 4, 9, 10]\n",
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n  <meta charset="utf-8">\n'
    "  <title>Corner Bakery</title>\n"
    '  <link rel="stylesheet" href="style.css">\n</head>\n<body class="bg-gray-100">\n'
    '  <header class="p-4 shadow"><h1 class="text-2xl font-bold">Corner Bakery</h1></header>\n'
    '  <main class="container mx-auto">\n    <section id="opening-hours">\n'
    "      <h2>Opening hours</h2>\n      <ul>\n        <li>Monday to Friday: 6:30 to 18:00</li>\n"
    "        <li>Saturday: 7:00 to 14:00</li>\n      </ul>\n    </section>\n"
    '    <button onclick="order()">Order a loaf</button>\n  </main>\n</body>\n</html>\n',
    "Dear Mr Okafor,\n\nThank you for your letter of 3 May about the broken "
    "lift in Elm House. I am "
    "sorry that you and your neighbours had to use the stairs for nine days. The motor has been "
    "replaced, and an engineer will look at it every month from now on. You will find a refund of "
    "one week's service charge on your next bill. If anything is still wrong, please telephone "
    "me directly.\n\nYours sincerely,\nHelen Brandt\nBuilding services",
    "How to repot a house plant\n\n1. Water the plant an hour before, so that "
    "its roots bend and do "
    "not break.\n2. Choose a pot two fingers wider than the old one, with a hole in the bottom.\n"
    "3. Put a shard over the hole and two centimetres of soil on top.\n4. Loosen the roots, cut "
    "off what is brown, and set the plant in the middle.\n5. Fill with soil to a finger's width "
    "below the rim and press it down gently.\n6. Water it, and keep it out of the sun for a week.",
    "A train leaves Aville at 9:15 and travels 180 kilometres to Bestad at 90 kilometres per "
    "hour. Another leaves Bestad at 9:45 on the same line towards Aville at 60 kilometres per "
    "hour. By 9:45 the first train has covered 45 kilometres, so 135 kilometres lie between them. "
    "They approach each other at 150 kilometres per hour and meet after 135 / 150 = 0.9 hours, "
    "which is 54 minutes. The answer is 10:39.",
    "春天来了，河边的柳树长出了新芽。早晨，老人们在公园里打太极拳，孩子们背着书包去上学。"
    "街角的小店卖热腾腾的包子和豆浆，香味飘得很远。王阿姨每天都来买两个菜包子，"
    "她说这里的味道和她小时候吃的一样。下午下了一点小雨，空气变得很清新。",
    "“请问，图书馆怎么走？”“一直往前走，到第二个路口向左拐，你会看见一座红色的楼，那就是图书馆。”"
    "“离这里远吗？”“不远，走路大约十分钟。”“谢谢您！”“不客气。”",
    "The history of zero is a history of doubt. Babylonian scribes left a gap where a digit was "
    "missing; later they drew two small wedges in it. Greek astronomers borrowed the sign and did "
    "not call it a number. In India, by the seventh century, Brahmagupta wrote down what happens "
    "when nothing is added, subtracted and multiplied, and stumbled only over division. Arabic "
    "scholars carried the digits west, and merchants in Italy, who distrusted a figure that could "
    "be turned into a nine by one stroke of a pen, were slow to let them in.",
    "SELECT c.name, COUNT(o.id) AS orders, SUM(o.total) AS spent\nFROM customers AS c\n"
    "LEFT JOIN orders AS o ON o.customer_id = c.id AND o.placed_at >= '2024-01-01'\n"
    "GROUP BY c.id, c.name\nHAVING COUNT(o.id) > 3\nORDER BY spent DESC\nLIMIT 20;\n\n"
    "-- Customers without orders have NULL in every column of o, so COUNT(o.id) is 0 for them.\n",
    '"You said you could fix it," Nadia said.\n"I said I could look at it." Tom put the cover '
    'back on the clock. "Looking is what I have done."\n"And?"\n"And it is dead. The spring '
    'broke, probably before either of us was born."\nShe laughed. "My grandmother set her watch '
    'by that clock every evening."\n"Then your grandmother," said Tom, "was always exactly on '
    'time for ten past four."',
    '{\n  "name": "weather-station",\n  "version": "2.3.1",\n  "sensors": [\n'
    '    {"id": 1, "kind": "temperature", "unit": "C", "value": 18.4},\n'
    '    {"id": 2, "kind": "humidity", "unit": "%", "value": 61},\n'
    '    {"id": 3, "kind": "wind", "unit": "m/s", "value": 3.7}\n  ],\n'
    '  "interval_seconds": 300,\n  "upload": true,\n  "owner": null\n}\n',
    "Bread needs flour, water, salt and time. Mix 500 grams of flour with 350 grams of water and "
    "leave it for half an hour. Add 10 grams of salt and 3 grams of dry yeast, and knead until the "
    "dough comes away from the bowl. Let it rise until it has doubled, which takes two hours in a "
    "warm kitchen and a whole night in a fridge. Shape it, let it rest for forty minutes, and bake "
    "it at 240 degrees for thirty-five minutes with a cup of water on the floor of the oven.",
    "Resume\n\nLena Vogel, software engineer\n\nExperience\n- 2019 to today: "
    "Northlight Maps, Oslo. "
    "Routing service in Go; cut the median response from 90 to 35 milliseconds.\n- 2015 to 2019: "
    "Institute of Marine Research. Tools for sonar data in Python and C++.\n\nEducation\n- MSc in "
    "computer science, 2015\n\nLanguages: Norwegian, German, English\nInterests: choirs, long "
    "walks, old radios",
    "The city council voted on Tuesday to close three streets around the market to cars from next "
    "spring. Supporters say that shops have gained customers wherever this was tried; opponents "
    "fear for deliveries and for people who cannot walk far. A compromise allows vans before ten "
    "in the morning and taxis at any time. The trial will run for a year, after which an "
    "independent report is due.",
)

HELD_OUT_TEXTS: tuple[str, ...] = (
    "My uncle kept bees at the end of the orchard, in hives he had painted sky blue because he "
    "believed they liked it. He never wore gloves. On warm evenings he would sit on an upturned "
    "crate with his pipe and listen to them, and he claimed that he could tell from the sound "
    "whether it would rain the next day. He was right about as often as the newspaper.",
    "Sound travels through air at about 340 metres per second, through water more than four times "
    "as fast, and through steel faster still. That is why someone who puts an ear to a rail hears "
    "the train twice: first in the metal, then in the air. The moon has no air at all, and an "
    "explosion there would be seen and felt through the ground, but not heard.",
    'class Stack:\n    """Last in, first out."""\n\n    def __init__(self):\n'
    "        self._items = []\n\n    def push(self, item):\n        self._items.append(item)\n\n"
    "    def pop(self):\n        if not self._items:\n"
    '            raise IndexError("pop from an empty stack")\n        return self._items.pop()\n\n'
    "    def __len__(self):\n        return len(self._items)\n",
    '<section class="hero">\n  <h1>Learn to sail</h1>\n  <p>Courses for beginners, every weekend '
    'from May to September.</p>\n  <a class="button" href="/book">Book a place</a>\n</section>\n'
    '<footer>\n  <p>Harbour School, Pier 4</p>\n  <nav><a href="/contact">Contact</a> '
    '<a href="/prices">Prices</a></nav>\n</footer>\n',
    "The museum opens at ten and closes at six, except on Mondays, when it stays shut. Tickets "
    "cost eight euros; children under twelve and students pay half. On the ground floor you will "
    "find the ship models, on the first floor the maps, and under the roof a small café with a "
    "view of the harbour. Bags must be left in the lockers beside the entrance.",
    "Three friends share a bill of 84 dollars. Anna had only a salad and pays 12. The others split "
    "the rest evenly, so each of them pays (84 - 12) / 2 = 36 dollars. If they add a tip of ten "
    "percent of the whole bill and share that equally among the three, each pays another 2.80.",
    "昨天晚上停电了，我们点了几支蜡烛，围坐在桌子旁边讲故事。弟弟有点害怕，"
    "妈妈就给他唱歌。过了一个小时，灯又亮了，大家都笑了起来。",
    "Before you call the support line, please check three things. Is the cable firmly in the "
    "socket at both ends? Does the small green light on the front of the box blink or stay on? And "
    "did you restart the computer after the last update? Most faults are mended by one of these. "
    "If yours is not, have the number on the back of the box ready.",
    "Once upon a time there was a little fox who was afraid of the dark. Every night she asked the "
    'moon to stay a little longer, and every night the moon said, "I must go round, but I will '
    'send you a star." After many nights the fox noticed that she knew all the stars by name, and '
    "that she had forgotten to be afraid.",
    "Glass is not a slow liquid. Old window panes are thicker at the bottom because of how they "
    "were made: a disc of molten glass was spun flat, cut up, and fitted with the heavy edge "
    "down. At room temperature the atoms of a pane would need far longer than the age of the "
    "universe to flow by the width of a hair.",
)

CALIBRATION_CHATS: tuple[tuple[str, str], ...] = (
    (
        "What is the capital of Australia, and why is it not Sydney?",
        "The capital of Australia is Canberra. When the colonies became one country in 1901, both "
        "Sydney and Melbourne wanted to be the capital. A new city between them was the "
        "compromise, and Parliament moved there in 1927.",
    ),
    (
        "Give me three tips for sleeping better.",
        "1. Go to bed and get up at the same time every day, even at weekends.\n2. Keep the "
        "bedroom cool, dark and quiet, and leave the phone in another room.\n3. Avoid coffee in "
        "the afternoon and heavy meals in the evening.",
    ),
    (
        "Write a function that reverses the words of a sentence.",
        '```python\ndef reverse_words(sentence):\n    return " ".join(reversed(sentence.split()))'
        '\n```\nFor example, `reverse_words("good morning world")` returns "world morning good".',
    ),
    (
        "为什么天空是蓝色的？",
        "阳光由各种颜色的光组成。空气分子对蓝光的散射比对红光强得多，所以我们从各个方向看到的都是蓝光。",
    ),
)

HELD_OUT_CHATS: tuple[tuple[str, str], ...] = (
    (
        "How do I remove a coffee stain from a shirt?",
        "Rinse the stain with cold water from the back of the cloth as soon as you can. Rub in a "
        "little washing-up liquid, leave it for ten minutes, and wash the shirt as usual. Check "
        "that the stain has gone before you dry it, because heat makes it stay.",
    ),
    (
        "What is the difference between weather and climate?",
        "Weather is what happens in the air on a given day: rain, wind, sunshine. Climate is what "
        "can be expected, the average of many years and how far single years stray from it.",
    ),
    (
        "Which is larger, 3/4 or 5/7?",
        "3/4 is larger. Written over the common denominator 28, 3/4 is 21/28 and 5/7 is 20/28.",
    ),
)

# What the adapters write, for checkpoints that have them.
CALIBRATION_ADAPTED: tuple[tuple[str, str], ...] = (
    ("web", CALIBRATION_TEXTS[3]),
    ("write", CALIBRATION_TEXTS[0]),
)
