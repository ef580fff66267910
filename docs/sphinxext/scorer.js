// How results of the search are ordered: pages whose title has the words that were asked for come first, then those
// that have them in the heading of a section. Sphinx alone counts a page's best word, and sorts the many that are equal
// by the alphabet.
const stemsOf = (text) => {
  const stemmer = new Stemmer();
  const words = splitQuery(text.toLowerCase().replaceAll("_", " ")).filter((word) => !stopwords.has(word));
  return new Set(words.map((word) => stemmer.stemWord(word)));
};

const likeness = (title, query) => {
  const asked = stemsOf(query);
  const words = stemsOf(title);
  const found = [...asked].filter((word) => words.has(word)).length;
  const verbatim = title.toLowerCase().includes(query.toLowerCase().trim());
  return 15 * (found / (asked.size || 1)) + (verbatim ? 10 : 0) - title.length / 50;
};

const headingsOf = (page) =>
  Object.entries(Search._index.alltitles)
    .filter(([, places]) => places.some(([file]) => Search._index.docnames[file] === page))
    .map(([title]) => title);

var Scorer = {
  score: ([page, title, , , score]) => {
    const query = new URLSearchParams(window.location.search).get("q") || "";
    const headings = headingsOf(page).map((heading) => likeness(heading, query));
    return score + Math.max(likeness(title.split(" > ").at(-1), query), ...headings.map((likely) => likely / 2));
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
