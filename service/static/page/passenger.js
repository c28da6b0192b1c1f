// A passenger: its fields, their columns in a CSV file, and some who are well known.

export const NUMBERS = ["age", "fare", "sibsp", "parch"];

export const FIELDS = {
  pclass: { name: "class", column: "Pclass" }, sex: { name: "sex", column: "Sex" }, name: { name: "name", column: "Name" },
  age: { name: "age", column: "Age" }, sibsp: { name: "siblings, spouses", column: "SibSp" },
  parch: { name: "parents, children", column: "Parch" }, fare: { name: "fare", column: "Fare" },
  ticket: { name: "ticket", column: "Ticket" }, cabin: { name: "cabin", column: "Cabin" }, embarked: { name: "port", column: "Embarked" },
};

// Text → what is sent for a field. What is no number stays text, so that the service itself says what it takes.
export function value(field, text) {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  if (field !== "pclass" && !NUMBERS.includes(field)) return trimmed;
  return /^[+-]?\d+([.,]\d+)?$/.test(trimmed) ? Number(trimmed.replace(",", ".")) : trimmed;
}

// `known`: among the passengers that the model was trained on. `fate` is what became of them in truth.
export const FAMOUS = [
  { label: "Margaret Brown", known: true, survived: true,
    fate: "She left in lifeboat 6, took an oar, and urged its crew to go back for others.",
    passenger: { pclass: 1, sex: "female", name: "Brown, Mrs. James Joseph (Margaret Tobin)", age: 44, sibsp: 0, parch: 0, fare: 27.7208, ticket: "PC 17610", cabin: "B4", embarked: "C" } },
  { label: "John Jacob Astor", known: false, survived: false,
    fate: "The richest man aboard asked to join his pregnant wife in lifeboat 4 and was refused. She lived.",
    passenger: { pclass: 1, sex: "male", name: "Astor, Col. John Jacob", age: 47, sibsp: 1, parch: 0, fare: 227.525, ticket: "PC 17757", cabin: "C62 C64", embarked: "C" } },
  { label: "Ida Straus", known: false, survived: false,
    fate: "She gave up her place in a lifeboat to stay with Isidor, her husband. No form could tell.",
    passenger: { pclass: 1, sex: "female", name: "Straus, Mrs. Isidor (Rosalie Ida Blun)", age: 63, sibsp: 1, parch: 0, fare: 221.7792, ticket: "PC 17483", cabin: "C55 C57", embarked: "S" } },
  { label: "Thomas Andrews", known: true, survived: false,
    fate: "He had designed the ship, and knew within the hour that she would sink.",
    passenger: { pclass: 1, sex: "male", name: "Andrews, Mr. Thomas Jr", age: 39, sibsp: 0, parch: 0, fare: 0, ticket: "112050", cabin: "A36", embarked: "S" } },
  { label: "Bruce Ismay", known: false, survived: true,
    fate: "The chairman of the White Star Line left in collapsible C, and was never forgiven for it.",
    passenger: { pclass: 1, sex: "male", name: "Ismay, Mr. Joseph Bruce", age: 49, sibsp: 0, parch: 0, fare: 0, ticket: "112058", cabin: "B52 B54 B56", embarked: "S" } },
  { label: "Loraine Allison", known: true, survived: false,
    fate: "The only child of first class who died, with both her parents; her baby brother lived.",
    passenger: { pclass: 1, sex: "female", name: "Allison, Miss. Helen Loraine", age: 2, sibsp: 1, parch: 2, fare: 151.55, ticket: "113781", cabin: "C22 C26", embarked: "S" } },
  { label: "Thomas Byles", known: true, survived: false,
    fate: "A priest, he is said to have refused a boat and stayed to pray with those who were left.",
    passenger: { pclass: 2, sex: "male", name: "Byles, Rev. Thomas Roussel Davids", age: 42, sibsp: 0, parch: 0, fare: 13, ticket: "244310", cabin: null, embarked: "S" } },
  { label: "Michel Navratil", known: true, survived: true,
    fate: "He and his brother came off in collapsible D; their father, who travelled under a false name, died.",
    passenger: { pclass: 2, sex: "male", name: "Navratil, Master. Michel M", age: 3, sibsp: 1, parch: 1, fare: 26, ticket: "230080", cabin: "F2", embarked: "S" } },
  { label: "Eugene Daly", known: true, survived: true,
    fate: "The piper from Athlone was in the water, and reached an overturned boat.",
    passenger: { pclass: 3, sex: "male", name: "Daly, Mr. Eugene Patrick", age: 29, sibsp: 0, parch: 0, fare: 7.75, ticket: "382651", cabin: null, embarked: "Q" } },
  { label: "Sidney Goodwin", known: true, survived: false,
    fate: "His whole family of eight died. He lay in Halifax as “the unknown child” until a century later.",
    passenger: { pclass: 3, sex: "male", name: "Goodwin, Master. Sidney Leonard", age: 1, sibsp: 5, parch: 2, fare: 46.9, ticket: "CA 2144", cabin: null, embarked: "S" } },
  { label: "Millvina Dean", known: false, survived: true,
    fate: "At two months she was the youngest aboard; she died in 2009, the last survivor.",
    passenger: { pclass: 3, sex: "female", name: "Dean, Miss. Elizabeth Gladys \"Millvina\"", age: 0.17, sibsp: 1, parch: 2, fare: 20.575, ticket: "C.A. 2315", cabin: null, embarked: "S" } },
];
